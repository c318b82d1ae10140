//! main.cf: which parameters there are, and what this instance of Postfix has set them to.
#![forbid(unsafe_code)]

pub mod lines;
