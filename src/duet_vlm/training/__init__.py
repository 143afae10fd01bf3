"""Fine-tuning with compression on: `duet train`, built on the Trainer of transformers. A leaf."""
