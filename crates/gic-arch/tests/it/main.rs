//! Tests of the codecs and the register tables over their whole encoding space.

mod command_encoding;
mod exhaustive;
mod registers;
