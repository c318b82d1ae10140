//! The obvious way to do what the program does fast, or in pieces, or with care: what the targets hold it against.

pub mod attributes;
pub mod content;
pub mod lines;
pub mod network;
pub mod records;
pub mod request;
