"""Conffusion-Audio's four steps for its users: split, extract, finetune, test, on MAESTRO's layout and its JSON files.

What each does beside the script it stands for, and what was changed and why, is in docs/conffusion.md.
"""
