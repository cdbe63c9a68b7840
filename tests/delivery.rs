//! The service delivers what appears in its spool to real servers: whole, once, and never with
//! a torn file visible under a final name.

mod support;

use std::fs;

use support::servers::{Opts, Server};
use support::service::Settings;
use support::{PATIENCE, content};

#[test]
fn a_file_in_the_spool_arrives_on_every_server() {
    for server in Server::all(&Opts::default()) {
        let service = Settings::new()
            .quick()
            .route("main", &server, "incoming")
            .start();
        let bytes = content(1, 300_000);
        service.put("main", "hello.bin", &bytes);
        service.wait_delivered("hello.bin");
        assert_eq!(fs::read(server.path("incoming/hello.bin")).unwrap(), bytes);
        service.wait_spool_empty("main", PATIENCE);
    }
}
