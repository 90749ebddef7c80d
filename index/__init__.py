"""Images, vectors and search. Knows NumPy, Pillow, ONNX Runtime and FAISS; no torch, no Gradio."""
