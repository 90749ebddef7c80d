"""Where vectors are kept and searched: an index folder with FAISS, or Milvus."""
