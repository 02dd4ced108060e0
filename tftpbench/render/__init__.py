"""Answers, comparisons, gates and loads as text, Markdown, HTML, JUnit, JSON and CSV.

It must never compute a figure of its own, write a file, or change a run.
"""
