//! Changes that are too large for stanzas.

use crate::PATIENCE;
use crate::steps::*;
use xmppsync_lab::{GroupOptions, Ldap};

/// Larger than the parts of a batch may be together, and smaller than slapd takes with this setting.
const PHOTO_BYTES: usize = 5 * 1024 * 1024;
const TAKE_LARGE: &str = "sockbuf_max_incoming_auth 33554432";

fn photo(seed: u8) -> Vec<u8> {
    (0..PHOTO_BYTES).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn set_photo(ldap: &mut Ldap, dn: &str, seed: u8) {
    let replace = xmppsync_lab::ldap3::Mod::Replace(b"jpegPhoto".to_vec(), [photo(seed)].into());
    let result = raw(ldap).modify(dn, vec![replace]);
    assert_eq!(code(result), 0);
}

#[test]
fn a_photo_of_5_mb_arrives_as_a_file_live_and_at_a_server_that_was_down() {
    let options =
        GroupOptions { servers: 3, global_lines: vec![TAKE_LARGE.to_owned()], ..GroupOptions::default() };
    let mut group = group_with(options);
    let mut ldap = group.servers[0].ldap().unwrap();
    let dn = add_person(&mut ldap, "photographed");
    settle(&group);
    set_photo(&mut ldap, &dn, 1);
    // What follows it does not overtake it.
    ldap.replace(&dn, "description", &["after the photo"]).unwrap();
    settle(&group);
    for server in &group.servers[1..] {
        server.wait_log("comes as a file", PATIENCE).unwrap();
        wait_values(server, &dn, "description", &["after the photo"]);
    }

    group.servers[2].stop().unwrap();
    set_photo(&mut ldap, &dn, 2);
    ldap.replace(&dn, "description", &["after the second photo"]).unwrap();
    group.servers[2].start().unwrap();
    group.servers[2].wait_log("comes as a file", PATIENCE).unwrap();
    settle(&group);
    wait_values(&group.servers[2], &dn, "description", &["after the second photo"]);
}
