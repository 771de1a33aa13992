"""The paper's tables and claims, and our numbers judged by them."""
