//! A throwaway Postgres: prints its address, and is gone when its input ends (ctrl-d).
//!
//! `cargo run -p amends-tests --example postgres`

#![allow(clippy::unwrap_used, reason = "a tool that fails by panicking")]

use amends_tests::postgres::Server;

fn main() {
    let server = Server::start_new();
    println!("postgres://postgres@127.0.0.1:{}/postgres", server.port());
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
}
