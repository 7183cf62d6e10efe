//! Groups in which slapds of two releases of Debian serve. `cargo xtask test --debian 13` runs them.

use crate::{loading, storm};
use xmppsync_lab::GroupOptions;

/// Every other server is of the other release.
fn mixed() -> GroupOptions {
    GroupOptions { other_release: vec![1, 3], ..GroupOptions::default() }
}

#[test]
#[ignore = "needs another release of Debian, which `cargo xtask test --debian 13` makes"]
fn random_writes_on_two_releases_of_slapd_have_one_result() {
    storm::have_one_result(mixed());
}

#[test]
#[ignore = "needs another release of Debian, which `cargo xtask test --debian 13` makes"]
fn an_empty_server_is_loaded_from_one_of_another_release() {
    loading::load_two_empty_servers_of(mixed());
}
