"""Where the images of a pool belong, by the answers and by predictions of them."""
