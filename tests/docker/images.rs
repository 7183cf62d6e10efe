//! What is in the images, and what is not.

use crate::system::docker;

#[test]
#[ignore = "needs the images: cargo xtask test --docker"]
fn the_image_that_serves_has_no_compiler_and_nothing_of_the_build() {
    let look = "for program in cc gcc cpp ld as make cargo rustc rustup; do command -v $program; done; ls -d /src /out /usr/include/ldap* 2> /dev/null; true";
    let found =
        docker(&["run", "--rm", "--network", "none", "--entrypoint", "sh", "xmppsync-slapd", "-c", look]);
    assert_eq!(found, "");
    let database = "find /var/lib/ldap /etc/ldap/slapd.d -type f 2> /dev/null; true";
    let found =
        docker(&["run", "--rm", "--network", "none", "--entrypoint", "sh", "xmppsync-slapd", "-c", database]);
    assert_eq!(found, "", "a database that slapd's package has made");
}
