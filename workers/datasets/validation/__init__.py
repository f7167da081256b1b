"""Turns labelled files into two splits and a report of everything that was found."""
