"""Config: composing, checking, identity and its errors, before anything heavy is imported."""
