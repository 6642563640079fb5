"""Metrics, analyses, tables and pictures of trained models."""
