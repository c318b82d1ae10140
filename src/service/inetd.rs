//! Serves one client on standard input and output, as inetd, xinetd, tcpserver and systemd pass it.
//!
//! The order is the whole content of this file; the steps are `service::server`'s.

use crate::config::Config;
use crate::exit::Fatal;
use crate::options::Options;
use crate::session::Outcome;

use super::server::{Launch, Server, log_warnings};

pub fn serve_stdin(options: &Options, config: &Config) -> Result<Outcome, Fatal> {
    let server = Server::prepare(config, Launch::Stdin)?;
    server.enter(options)?;
    log_warnings(config);
    server.serve_client(options, None)
}
