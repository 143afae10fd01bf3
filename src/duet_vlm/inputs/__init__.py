"""What a question is made of: pictures, videos, text files, checkpoints, prompts."""
