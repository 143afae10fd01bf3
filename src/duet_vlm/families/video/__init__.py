"""What families say of videos: which frames a model is shown, and how they become its tensors."""
