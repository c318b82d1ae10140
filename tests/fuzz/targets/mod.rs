//! Fuzz targets: plain functions of bytes that panic where a promise is broken.
//!
//! `tests/fuzz` hands them to a fuzzer. The tests here run each over its corpus, `tests/fuzz/corpus/NAME`, and over
//! random inputs of the form that it reads. What is expected comes from the obvious way to do the same, without
//! regard to speed, or was known before the input was made of it.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "what should not happen is what a fuzzer looks for"
)]

mod cat;
mod cdb;
mod cidr;
mod cleanup;
mod input;
mod main_cf;
mod match_list;
mod message;
mod obvious;
mod proxy_header;
mod queue_file;
mod records;
mod regexp;
mod request;
mod session;
mod steps;
mod surroundings;
mod texthash;

#[cfg(test)]
mod random;

pub use {
    cat::cat, cdb::cdb, cidr::cidr, cleanup::cleanup, main_cf::main_cf, match_list::match_list,
    proxy_header::proxy_header, queue_file::queue_file, records::records, regexp::regexp,
    request::request, session::session, texthash::texthash,
};
