"""Images, their roles, the order they are drawn in and the views made of them."""
