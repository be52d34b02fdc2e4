"""Artifacts are read from the Hugging Face hub as `hf:ID@REVISION`, and uploaded to it.

All traffic goes through `huggingface_hub`: its login, its cache, its settings (HF_ENDPOINT, HF_HUB_OFFLINE).
"""
