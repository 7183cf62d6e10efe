//! slapd's own replication, which benchmarks compare with, works in a group.

use std::time::Duration;

use xmppsync_lab::{Group, GroupOptions, Replication, SUFFIX, Topology, assert_equal_with, ldif, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);

fn replicates(replication: Replication, topology: Topology) -> xmppsync_lab::Result<()> {
    let group = Group::with(GroupOptions { replication, topology, ..GroupOptions::default() })?;
    let records = ldif::directory(SUFFIX, 20);
    group.servers[0].ldapmodify(SUFFIX, &ldif::text(&records))?;
    for server in &group.servers {
        let mut ldap = server.ldap()?;
        wait_until("the last entry is there", DEADLINE, || {
            match ldap.entry(&records[records.len() - 1].dn) {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
    }
    let second_writer = if topology == Topology::Mesh { 1 } else { 0 };
    group.servers[second_writer].ldap()?.replace(&ldif::person_dn(SUFFIX, 3), "title", &["changed"])?;
    assert_equal_with(&group.servers, SUFFIX, xmppsync_lab::ContextCsn::Compare, DEADLINE)?;
    Ok(())
}

#[test]
fn syncrepl_replicates() {
    replicates(Replication::Syncrepl, Topology::Mesh).unwrap();
}

#[test]
fn delta_syncrepl_replicates() {
    replicates(Replication::DeltaSyncrepl, Topology::Mesh).unwrap();
}

#[test]
fn syncrepl_from_one_provider_replicates() {
    replicates(Replication::Syncrepl, Topology::Star).unwrap();
}

#[test]
fn delta_syncrepl_from_one_provider_replicates() {
    replicates(Replication::DeltaSyncrepl, Topology::Star).unwrap();
}
