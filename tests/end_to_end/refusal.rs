//! What does not fit together is refused with a sentence: the module by slapd, the headers by the build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use xmppsync_lab::{LabDir, Slapd, SlapdConfig, SlapdOptions, module_path};

/// A slapd that loads the module and uses it nowhere.
fn slapd(lab: &LabDir, environment: Vec<(String, String)>) -> Slapd {
    let modules = vec![module_path().unwrap().display().to_string()];
    let config = SlapdConfig { modules, ..SlapdConfig::default() };
    Slapd::prepare(lab, "a", config, SlapdOptions { environment, ..SlapdOptions::default() }).unwrap()
}

#[test]
fn a_slapd_of_another_version_refuses_the_module_with_a_sentence() {
    let lab = LabDir::new().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/another_slapd.c");
    let library = lab.path().join("another_slapd.so");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(compiled.unwrap().success());
    let environment = vec![("LD_PRELOAD".to_owned(), library.display().to_string())];
    let error = slapd(&lab, environment).start().unwrap_err().to_string();
    for words in ["this slapd is OpenLDAP 20499, the module was built for", "cargo xtask install"] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_slapd_with_another_layout_refuses_the_module_with_a_sentence() {
    let lab = LabDir::new().unwrap();
    let mut slapd = slapd(&lab, Vec::new());
    slapd.start().unwrap();
    let program = fs::read_link(format!("/proc/{}/exe", slapd.pid().unwrap())).unwrap();
    slapd.stop().unwrap();
    let mut bytes = fs::read(program).unwrap();
    enlarge_symbol(&mut bytes, "slap_counters");
    let other = lab.write("other-slapd", bytes).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&other, mode).unwrap();
    let config = slapd.dir().join("slapd.conf");
    let output = Command::new(other).args(["-T", "test", "-u", "-f"]).arg(config).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    for words in ["slapd's slap_counters has", "the headers of the build say", "do not match this slapd"] {
        assert!(said.contains(words), "{said}");
    }
}

/// Makes a program say that one of the objects which it exports is larger than it is.
fn enlarge_symbol(elf: &mut [u8], name: &str) {
    const DYNAMIC_SYMBOLS: u64 = 11;
    let read = |elf: &[u8], at: usize, len: usize| {
        elf[at..at + len].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    // ELF64, little endian: the table of sections, and in it offset, size and linked table of names.
    let (table, len, count) = (read(elf, 0x28, 8) as usize, read(elf, 0x3a, 2) as usize, read(elf, 0x3c, 2));
    let sections: Vec<_> = (0..count as usize).map(|number| table + number * len).collect();
    let symbols = *sections.iter().find(|at| read(elf, **at + 4, 4) == DYNAMIC_SYMBOLS).unwrap();
    let names = sections[read(elf, symbols + 0x28, 4) as usize];
    let names = read(elf, names + 0x18, 8) as usize;
    let (begin, size) = (read(elf, symbols + 0x18, 8) as usize, read(elf, symbols + 0x20, 8) as usize);
    let wanted = format!("{name}\0");
    let symbol = (begin..begin + size)
        .step_by(24)
        .find(|at| elf[names + read(elf, *at, 4) as usize..].starts_with(wanted.as_bytes()))
        .unwrap();
    let larger = read(elf, symbol + 16, 8) + 8;
    elf[symbol + 16..symbol + 24].copy_from_slice(&larger.to_le_bytes());
}

/// The build script as cargo has compiled it, run anew.
fn build_script(environment: &[(&str, &Path)]) -> String {
    let build = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("build");
    let scripts = fs::read_dir(build).unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| is_of_overlay(&name.to_string_lossy()));
    let scripts =
        scripts.filter(named).map(|path| path.join("build-script-build")).filter(|path| path.is_file());
    // The last compiled, where several are left.
    let script = scripts.max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap()).unwrap();
    let mut command = Command::new(script);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    for variable in ["OPENLDAP_SRC", "OPENLDAP_BUILD", "XMPPSYNC_SLAPD_VERSION"] {
        command.env_remove(variable);
    }
    command.envs(environment.iter().copied());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success(), "{said}");
    said.lines().filter(|line| line.starts_with("cargo::error=")).collect()
}

/// `xmppsync-HASH`, and not the one of another package.
fn is_of_overlay(directory: &str) -> bool {
    directory.strip_prefix("xmppsync-").is_some_and(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[test]
fn a_build_without_headers_says_what_to_run() {
    let lab = LabDir::new().unwrap();
    let absent = lab.path().join("absent");
    let wrong_source = build_script(&[("OPENLDAP_SRC", &absent)]);
    for words in ["absent/servers/slapd/slap.h is missing", "cargo xtask setup", "OPENLDAP_SRC"] {
        assert!(wrong_source.contains(words), "{wrong_source}");
    }
    let half = build_script(&[("OPENLDAP_BUILD", &absent)]);
    assert!(half.contains("OPENLDAP_SRC is not: set both, or neither"), "{half}");
    let nothing = build_script(&[("XDG_DATA_HOME", &absent)]);
    assert!(nothing.contains("cargo xtask setup"), "{nothing}");
}

#[test]
fn a_build_with_the_headers_of_another_slapd_says_what_to_run() {
    let lab = LabDir::new().unwrap();
    let query = Command::new("dpkg-query").args(["-W", "-f", "${Version}", "slapd"]).output().unwrap();
    let version = String::from_utf8(query.stdout).unwrap();
    let place = format!("xmppsync/openldap-{}", version.trim());
    lab.subdir(&place).unwrap();
    lab.write(&format!("{place}/xmppsync-setup.txt"), "2.4.99\n").unwrap();
    let said = build_script(&[("XDG_DATA_HOME", lab.path())]);
    for words in
        ["are those of slapd 2.4.99", &format!("installed is {}", version.trim()), "cargo xtask setup"]
    {
        assert!(said.contains(words), "{said}");
    }
}

/// The headers that `cargo xtask setup` made, as if they were of another release.
fn headers_of_another_release(lab: &LabDir) -> [PathBuf; 2] {
    let source = lab.subdir("openldap/servers/slapd").unwrap();
    let include = lab.subdir("openldap/include").unwrap();
    fs::write(source.join("slap.h"), "").unwrap();
    for header in ["ldap.h", "portable.h", "lber_types.h", "ldap_config.h"] {
        fs::write(include.join(header), "").unwrap();
    }
    let numbers = [("MAJOR", 2), ("MINOR", 4), ("PATCH", 59)];
    let lines = numbers.map(|(part, number)| format!("#define LDAP_VENDOR_VERSION_{part} {number}\n"));
    fs::write(include.join("ldap_features.h"), lines.concat()).unwrap();
    let top = lab.path().join("openldap");
    [top.clone(), top]
}

#[test]
fn a_build_with_openldap_src_of_another_release_says_what_to_run() {
    let lab = LabDir::new().unwrap();
    let [source, build] = headers_of_another_release(&lab);
    let query = Command::new("dpkg-query").args(["-W", "-f", "${Version}", "slapd"]).output().unwrap();
    let installed = format!("installed is slapd {}", String::from_utf8(query.stdout).unwrap().trim());
    let both = [("OPENLDAP_SRC", source.as_path()), ("OPENLDAP_BUILD", build.as_path())];
    for environment in [&both[..], &both[..1]] {
        let said = build_script(environment);
        for words in [
            "are those of OpenLDAP 2.4.59",
            &installed,
            "unset OPENLDAP_SRC and OPENLDAP_BUILD and run `cargo xtask setup`",
            "or set XMPPSYNC_SLAPD_VERSION=2.4.59",
        ] {
            assert!(said.contains(words), "{said}");
        }
    }
    // The way out that it names, and what is said when it is taken wrongly.
    let with = |version: &'static str| {
        build_script(&[&both[..], &[("XMPPSYNC_SLAPD_VERSION", Path::new(version))]].concat())
    };
    let said = with("2.5.13");
    assert!(
        said.contains("XMPPSYNC_SLAPD_VERSION is 2.5.13, and") && said.contains("OpenLDAP 2.4.59"),
        "{said}"
    );
    // Then the headers are taken; these are empty, and the compiler finds nothing in them.
    let said = with("2.4.59");
    assert!(!said.contains("OpenLDAP 2.4.59"), "{said}");
}
