"""What an author asks for in the words of torch-model-archiver."""
