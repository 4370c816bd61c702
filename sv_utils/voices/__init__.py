"""Answers about recordings: whose voice is it?"""
