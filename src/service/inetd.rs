//! Serves one client on standard input and output, as inetd, xinetd, tcpserver and systemd pass it.
//!
//! Follows `tests/spec/master.md`, section 6. The steps themselves are left to `service::server`.

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
