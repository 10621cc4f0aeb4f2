"""`make compose-test`: the stack of compose.yaml, brought up, loaded, hurt, and taken down."""
