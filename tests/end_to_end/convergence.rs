//! A change written on one server appears on the others.

use crate::PATIENCE;
use xmppsync_lab::Group;
use xmppsync_lab::ldif;

#[test]
fn a_directory_written_on_one_server_appears_on_the_others() {
    let group = Group::new(3).unwrap();
    for record in ldif::directory("dc=example,dc=com", 50) {
        group.servers[0].ldap().unwrap().add_bytes(&record.dn, record.attributes).unwrap();
    }
    group.assert_equal(PATIENCE).unwrap();
}
