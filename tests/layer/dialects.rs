//! Archives made by others, in every dialect: read, and made again from the recipe bit for bit.
