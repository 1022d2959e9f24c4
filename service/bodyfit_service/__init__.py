"""bodyfit over gRPC: the server that people put in production, and its clients."""
