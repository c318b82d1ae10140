//! The table of parameters: the only place with their names, kinds, defaults and bounds, and whether they have an
//! effect.
//!
//! The order is that in which Postfix's daemons load their parameters (as `qmqpd -v -v -v` shows it), because a default
//! can refer to earlier ones only. The table has every parameter that each daemon loads, so that a `$name` in main.cf
//! has the same value as in Postfix. Defaults are those of Debian's Postfix where they are paths.
//! `config/tests/postfix.rs` compares them with postconf(1). Follows `tests/spec/main-cf.md`, section 6. `--check`
//! prints the comments.

use super::hostname::{Hostname, Origin, Relayhost, mydomain, myhostname};
use super::installed::{default_cache_db_type, default_database_type, meta_directory};
use super::keywords::{
    Facility, Protocols, ProxyProtocol, QueueMethod, ReceiveOverrides, Style, Utf8Classes,
};
use super::kinds::{
    Bool, Bytes, Count, Int, Kind, Level, Limit, Long, MaillogFile, Path, Text, Time, VerpFilter,
};
use super::mynetworks::mynetworks;
use super::params::{DefaultValue, Param, parameters};
use super::{Config, Error, config_directory, process_id, process_name, service_name};

parameters! {
    // Set before main.cf is read, or first after it.

    /// The name by which this program was called.
    process_name: Text = fixed process_name;
    /// The directory of main.cf; setting it changes what `$config_directory` stands for, and nothing else.
    config_directory: Path = computed config_directory, min 1;
    /// The name of this service in master.cf.
    service_name: Text = fixed service_name => acts;
    /// The Postfix version whose defaults apply where later versions changed them.
    compatibility_level: Level = "0" => acts;
    /// The version of Postfix that this is compatible with.
    mail_version: Text = "3.7.11", min 1;
    /// The facility of syslog(3) to log with.
    syslog_facility: Facility = "mail", min 1 => acts;
    /// The address families that clients may use.
    inet_protocols: Protocols = "all" => acts;
    /// The configuration directories of further Postfix instances.
    multi_instance_directories: Text = "";
    /// The group of instances that this one belongs to.
    multi_instance_group: Text = "";
    /// The name of this instance.
    multi_instance_name: Text = "";
    /// The log file of postlogd(8); if empty, the log is syslog's.
    maillog_file: MaillogFile = "" => acts;
    /// What the name of maillog_file must start with.
    maillog_file_prefixes: Text = "/var, /dev/stdout", min 1 => asked;
    /// The program that compresses old log files.
    maillog_file_compressor: Text = "gzip", min 1;
    /// What is appended to the names of old log files.
    maillog_file_rotate_suffix: Text = "%Y%m%d-%H%M%S", min 1;
    /// The mode of a new log file.
    maillog_file_permissions: Text = "0600", min 1;
    /// The name of the postlogd(8) service, and of its socket.
    postlog_service_name: Text = "postlog", min 1 => acts;
    /// The DNS query that tells whether the resolver validates.
    dnssec_probe: Text = "ns:.";
    /// Port names that need no lookup.
    known_tcp_ports: Text = "lmtp=24, smtp=25, smtps=submissions=465, submission=587";
    /// Whether a table that cannot be opened ends the process.
    daemon_table_open_error_is_fatal: Bool = "no" => acts;
    /// Whether answers from the DNS cache are corrected.
    dns_ncache_ttl_fix_enable: Bool = "no";
    /// Whether text may be UTF-8: in log lines, patterns and table keys.
    smtputf8_enable: Bool = "${{$compatibility_level} <level {1} ? {no} : {yes}}" => acts;
    /// Whether domain names follow the older rules for international names.
    enable_idna2003_compatibility: Bool = "no";
    /// Whether log lines avoid some older words.
    respectful_logging: Bool = "${{$compatibility_level} <level {3.6} ? {no} : {yes}}";
    /// Whether REQUIRETLS is offered.
    requiretls_enable: Bool = "yes";
    /// Whether the TLS-Required header is honoured.
    tls_required_enable: Bool = "yes" => acts;
    /// Whether requests for Berkeley DB tables that are redirected are logged.
    non_bdb_migration_log_redirect: Bool = "yes";
    /// The name of this machine.
    myhostname: Hostname = computed myhostname, min 1 => acts;
    /// The domain of this machine.
    mydomain: Hostname = computed mydomain, min 1;

    // Text.

    /// The name of the mail system, in Received: headers.
    mail_name: Bytes = "Postfix", min 1 => acts;
    /// The first part of the tag of log lines.
    syslog_name: Text = "${multi_instance_name?{$multi_instance_name}:{postfix}}", min 1 => acts;
    /// The user that owns the mail queue, and that daemons run as.
    mail_owner: Text = "postfix", min 1 => acts;
    /// The group of the programs that submit mail.
    setgid_group: Text = "postdrop", min 1 => asked;
    /// The domains that are delivered on this machine.
    mydestination: Text = "$myhostname, localhost.$mydomain, localhost";
    /// The domain that is appended to addresses that have none.
    myorigin: Origin = "$myhostname", min 1 => acts;
    /// The next host for mail that is not local.
    relayhost: Relayhost = "";
    /// Where Postfix's daemons are.
    daemon_directory: Path = "/usr/lib/postfix/sbin", min 1;
    /// Where daemons keep files that may be lost.
    data_directory: Path = "/var/lib/postfix", min 1;
    /// Where Postfix's commands are.
    command_directory: Path = "/usr/sbin", min 1 => acts;
    /// Where the lists of Postfix's files and table types are.
    meta_directory: Path = computed meta_directory, min 1 => acts;
    /// The mail queue: the working directory of a daemon, or its root.
    queue_directory: Path = "/var/spool/postfix", min 1 => acts;
    /// Where Postfix's libraries are.
    shlib_directory: Path = "/usr/lib/postfix", min 1;
    /// Where lock files are, below the queue directory.
    process_id_directory: Path = "pid", min 1;
    /// The addresses of this machine that receive mail.
    inet_interfaces: Text = "all" => asked;
    /// The addresses by which this machine is reached through a proxy.
    proxy_interfaces: Text = "";
    /// The sender of notices about undeliverable notices.
    double_bounce_sender: Text = "double-bounce", min 1;
    /// The user for deliveries that no user owns.
    default_privs: Text = "nobody", min 1 => asked;
    /// The date of the version of Postfix that this is compatible with.
    mail_release_date: Text = "20240304", min 1;
    /// The table type where none is named.
    default_database_type: Text = computed default_database_type, min 1;
    /// The table type for caches.
    default_cache_db_type: Text = computed default_cache_db_type, min 1;
    /// The alias tables that newaliases(1) makes.
    alias_database: Text = "$default_database_type:/etc/aliases";
    /// Queues that are spread over subdirectories.
    hash_queue_names: Text = "deferred, defer", min 1 => acts;
    /// The characters that separate a user name from an extension.
    recipient_delimiter: Text = "";
    /// The domains that mail is relayed to.
    relay_domains: Text = "${{$compatibility_level} <level {2} ? {$mydestination} : {}}";
    /// The domains that are eligible for a fast flush.
    fast_flush_domains: Text = "$relay_domains";
    /// What commands outside Postfix find in their environment.
    export_environment: Text = "TZ MAIL_CONFIG LANG";
    /// What Postfix keeps of the environment it is started in.
    import_environment: Text =
        "MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ XAUTHORITY DISPLAY LANG=C POSTLOG_SERVICE POSTLOG_HOSTNAME XDG_RUNTIME_DIR";
    /// How much around this machine's addresses mynetworks covers where it is not set.
    mynetworks_style: Style = "${{$compatibility_level} <level {2} ? {subnet} : {host}}", min 1 => asked;
    /// The clients whose sessions are logged in detail.
    debug_peer_list: Text = "" => acts;
    /// The characters that separate the parts of a VERP address.
    default_verp_delimiters: Bytes = "+=", min 2, max 2 => asked;
    /// The characters that a client may choose for that.
    verp_delimiter_filter: VerpFilter = "-=+", min 1 => acts;
    /// The parameters in which a domain stands for its subdomains, too.
    parent_domain_matches_subdomains: Text =
        "debug_peer_list,fast_flush_domains,mynetworks,permit_mx_backup_networks,qmqpd_authorized_clients,relay_domains,smtpd_access_maps" => acts;
    /// The configuration directories that set-id programs may be told to use.
    alternate_config_directories: Text = "";
    /// The name of the bounce(8) service.
    bounce_service_name: Text = "bounce", min 1;
    /// The name of the cleanup(8) service, and of its socket.
    cleanup_service_name: Text = "cleanup", min 1 => acts;
    /// The name of the defer service, which bounce(8) provides.
    defer_service_name: Text = "defer", min 1;
    /// The name of the pickup(8) service.
    pickup_service_name: Text = "pickup", min 1;
    /// The name of the qmgr(8) service, and of its socket.
    queue_service_name: Text = "qmgr", min 1 => acts;
    /// The name of the rewrite service, which trivial-rewrite(8) provides.
    rewrite_service_name: Text = "rewrite", min 1;
    /// The name of the showq(8) service.
    showq_service_name: Text = "showq", min 1;
    /// The name of the error(8) service.
    error_service_name: Text = "error", min 1;
    /// The name of the flush(8) service.
    flush_service_name: Text = "flush", min 1;
    /// The name of the verify(8) service.
    address_verify_service_name: Text = "verify", min 1;
    /// The name of the trace service, which bounce(8) provides.
    trace_service_name: Text = "trace", min 1;
    /// The name of the proxymap(8) service, and of its socket.
    proxymap_service_name: Text = "proxymap", min 1 => acts;
    /// The name of the proxymap(8) service that can write.
    proxywrite_service_name: Text = "proxywrite", min 1;
    /// The kinds of Postfix's own mail that are filtered.
    internal_mail_filter_classes: Text = "";
    /// The program that manages several instances.
    multi_instance_wrapper: Text = "";
    /// The table that changes the status of deliveries.
    default_delivery_status_filter: Text = "";
    /// The kinds of mail that are looked at for UTF-8.
    smtputf8_autodetect_classes: Utf8Classes = "sendmail, verify", min 1 => acts;
    /// The headers that are removed from messages.
    message_drop_headers: Text = "bcc, content-length, resent-bcc, return-path" => acts;
    /// The form of addresses in log lines.
    info_log_address_format: Text = "external", min 1;
    /// What is done about Berkeley DB tables where there is no Berkeley DB.
    non_bdb_migration_level: Text = "disable", min 1;
    /// The service that makes tables of other types out of those of Berkeley DB.
    non_bdb_migration_service_name: Text = "nbdb_reindex", min 1;
    /// Types that take the place of others.
    non_bdb_custom_mapping: Text = "";

    // Numbers.

    /// How many processes a service may have.
    default_process_limit: Int = "100", min 1;
    /// How many connections a process serves before it ends.
    max_use: Count = "100", min 1 => acts;
    /// Whether queue files are kept after delivery.
    dont_remove: Int = "0";
    /// The longest sender, recipient and text record, in bytes.
    line_length_limit: Count = "2048", min 512 => acts;
    /// How many levels of subdirectories hash_queue_names have.
    hash_queue_depth: Count = "1", min 1 => acts;
    /// How often to try to fork.
    fork_attempts: Int = "5", min 1;
    /// How often to try to lock a mailbox.
    deliver_lock_attempts: Int = "20", min 1;
    /// How much detail debug_peer_list adds to the log.
    debug_peer_level: Count = "2", min 1 => acts;
    /// The fault that a test injects.
    fault_injection_code: Int = "0";
    /// The memory for making a Berkeley DB table, in bytes.
    berkeley_db_create_buffer_size: Int = "16777216", min 1;
    /// The memory for reading a Berkeley DB table, in bytes.
    berkeley_db_read_buffer_size: Int = "131072", min 1;
    /// The longest header, in bytes.
    header_size_limit: Count = "102400", min 1 => acts;
    /// How many words of a header are looked at for addresses.
    header_address_token_limit: Int = "10240", min 1;
    /// How deep MIME parts may be nested.
    mime_nesting_limit: Int = "100", min 1;
    /// How much of a MIME boundary counts, in bytes.
    mime_boundary_length_limit: Int = "2048", min 1;
    /// How many digits the delays in the log have.
    delay_logging_resolution_limit: Int = "2", max 6;
    /// The TCP window, in bytes; 0 leaves it to the kernel.
    tcp_windowsize: Int = "0";
    /// The longest reply of a socketmap server, in bytes.
    socketmap_max_reply_size: Int = "100000", min 1;
    /// The longest query to a socketmap server, in bytes.
    socketmap_max_query_size: Int = "10000", min 1;
    /// The longest message, in bytes; 0 or less is no limit.
    message_size_limit: Limit = "10240000" => acts;
    /// The first size of an LMDB table, in bytes.
    lmdb_map_size: Long = "16777216", min 1;

    // Yes or no.

    /// Whether mail delivery does without the DNS.
    disable_dns_lookups: Bool = "no";
    /// Whether every permanent error becomes a temporary one.
    soft_bounce: Bool = "no" => acts;
    /// Whether `owner-LIST` and `LIST-request` are special.
    owner_request_special: Bool = "yes";
    /// Whether strict_7bit_headers and strict_8bitmime_body are on.
    strict_8bitmime: Bool = "no";
    /// Whether headers that are not ASCII are refused.
    strict_7bit_headers: Bool = "no";
    /// Whether 8-bit text without a MIME header is refused.
    strict_8bitmime_body: Bool = "no";
    /// Whether bad encodings of composite MIME parts are refused.
    strict_mime_encoding_domain: Bool = "no";
    /// Whether MIME is not looked at in mail that comes in.
    disable_mime_input_processing: Bool = "no";
    /// Whether mail that goes out is not converted to 7-bit.
    disable_mime_output_conversion: Bool = "no";
    /// Whether failed address probes are cached.
    address_verify_negative_cache: Bool = "yes";
    /// Whether bounce logs are also written in an older form.
    backwards_bounce_logfile_compatibility: Bool = "yes";
    /// Whether there are warnings about likely mistakes.
    helpful_warnings: Bool = "yes";
    /// Whether SASL clients send an authorization id.
    send_cyrus_sasl_authzid: Bool = "no";
    /// Whether this instance is started with the others.
    multi_instance_enable: Bool = "no";
    /// Whether queue ids are unique for ever, and longer.
    enable_long_queue_ids: Bool = "no" => acts;
    /// Whether SMTPUTF8 is enforced.
    strict_smtputf8: Bool = "no";
    /// Whether recipients are kept as they were received, too.
    enable_original_recipient: Bool = "yes" => acts;

    // Times.

    /// How long to wait for the end of requests when a process has to end.
    application_event_drain_time: Time = "100s", min 1;
    /// How long a process without work stays.
    max_idle: Time = "100s", min 1 => acts;
    /// How long to wait for another daemon of Postfix.
    ipc_timeout: Time = "3600s", min 1 => acts;
    /// How long an unused connection to another daemon is kept.
    ipc_idle: Time = "5s", min 1;
    /// How long a connection to another daemon is kept at all.
    ipc_ttl: Time = "1000s", min 1;
    /// How long waking another daemon may take.
    trigger_timeout: Time = "10s", min 1;
    /// The pause between attempts to fork.
    fork_delay: Time = "1s", min 1;
    /// The pause between attempts to lock a mailbox.
    deliver_lock_delay: Time = "1s", min 1;
    /// The age at which a mailbox lock is a leftover.
    stale_lock_time: Time = "500s", min 1;
    /// How long one connection may take altogether.
    daemon_timeout: Time = "18000s", min 1 => acts;
    /// The pause when mail comes in faster than it goes out.
    in_flow_delay: Time = "1s", max 10;

    // The machine's interfaces and accounts decide these.

    /// The networks of clients that are trusted.
    mynetworks: Text = computed mynetworks => acts_in_values;
    /// The id of this process.
    process_id: Text = fixed process_id;

    // qmqpd's own.

    /// The limit of each wait for the client.
    qmqpd_timeout: Time = "300s", min 1 => acts;
    /// The pause before a reply other than `K`.
    qmqpd_error_delay: Time = "1s" => acts;
    /// The filter that the queue manager sends messages through.
    content_filter: Bytes = "" => acts;
    /// The clients that may use the service.
    qmqpd_authorized_clients: Text = "" => acts;
    /// The steps that cleanup(8) omits for messages of this service.
    receive_override_options: ReceiveOverrides = "" => acts;
    /// Whether log lines have the client's port.
    qmqpd_client_port_logging: Bool = "no" => acts;

    // Not in Postfix.

    /// The queue: `cleanup` (Postfix's), `file` (a queue file that qmqpd writes), or `qmail:` and a program.
    qmqpd_queue_method: QueueMethod = "cleanup" => acts;
    /// Whether processes are confined; with `yes` none serves unconfined.
    qmqpd_sandbox: Bool = "yes" => acts;
    /// Whether the client's name is looked up.
    qmqpd_peername_lookup: Bool = "yes" => acts;
    /// Whether log lines go to standard error.
    qmqpd_log_stderr: Bool = "no" => acts;
    /// The largest number of sessions at a time, with `--accept`.
    qmqpd_process_limit: Count = "100", min 1 => acts;
    /// The largest number of sessions of one client, with `--accept`; 0 is no limit.
    qmqpd_client_connection_count_limit: Count = "40" => acts;
    /// The number of bits of an IPv4 address that make a client, with `--accept`.
    qmqpd_client_ipv4_prefix_length: Count = "32", max 32 => acts;
    /// The number of bits of an IPv6 address that make a client, with `--accept`.
    qmqpd_client_ipv6_prefix_length: Count = "64", max 128 => acts;
    /// Whether the last line of a session has its result.
    qmqpd_disconnect_stats: Bool = "no" => acts;
    /// The protocol by which a proxy names the client; empty without a proxy.
    qmqpd_upstream_proxy_protocol: ProxyProtocol = "" => acts;
    /// The limit for the proxy's header.
    qmqpd_upstream_proxy_timeout: Time = "5s", min 1 => acts;
    /// The addresses of the proxies that may name clients.
    qmqpd_upstream_proxy_clients: Text = "" => acts;

    // cleanup(8)'s, for the queue method `file`.

    /// Whether CR and LF within a line become blanks.
    cleanup_replace_stray_cr_lf: Bool = "yes" => acts;
    /// How many recipients are compared to find duplicates; 0 is no limit.
    duplicate_filter_limit: Count = "1000" => acts;
    /// The recipient that replaces an empty recipient.
    empty_address_recipient: Text = "MAILER-DAEMON", min 1 => acts;
    /// How many Received: headers a message may have.
    hopcount_limit: Count = "50", min 1 => acts;
    /// How many bytes must be free for mail to be accepted.
    queue_minfree: Limit = "0" => acts;
    /// The header of a message that shows no recipients.
    undisclosed_recipients_header: Text = "" => acts;
    /// The characters that are removed from messages, as C escapes.
    message_strip_characters: Bytes = "" => acts;
    /// The characters that a message is rejected for, as C escapes.
    message_reject_characters: Bytes = "" => acts;
    /// Whether Content-Transfer-Encoding: tells that a message is 8-bit.
    detect_8bit_encoding_header: Bool = "yes" => acts;
    /// Whether an address without a domain gets that of `$myorigin`.
    append_at_myorigin: Bool = "yes" => acts;
    /// When the sender is told that mail is late; 0 is never.
    delay_warning_time: Time = "0h" => acts;
}
