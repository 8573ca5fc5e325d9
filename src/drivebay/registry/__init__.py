"""The registry: which media there are, what they are for, who uses them. An index, never the only truth."""
