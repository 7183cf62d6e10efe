//! Finds slapd's headers, compiles the shim against them, and binds the boundary between shim and Rust.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

const SHIM: [&str; 22] = [
    "register.c",
    "layout.c",
    "look.c",
    "marks.c",
    "config.c",
    "capture.c",
    "ordered.c",
    "clock.c",
    "derived.c",
    "transactions.c",
    "apply.c",
    "care.c",
    "put.c",
    "commits.c",
    "stack.c",
    "write.c",
    "attributes.c",
    "context.c",
    "read.c",
    "suffix.c",
    "busy.c",
    "pool.c",
];
/// Where `cargo xtask setup` notes which slapd its headers belong to.
const SETUP_NOTE: &str = "xmppsync-setup.txt";
/// Names the version to build for when that is not the installed one.
const OTHER_SLAPD: &str = "XMPPSYNC_SLAPD_VERSION";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Headers {
    /// The unpacked sources of OpenLDAP.
    source: PathBuf,
    /// Where `configure` ran.
    build: PathBuf,
}

fn main() {
    if let Err(problem) = build() {
        println!("cargo::error={problem}");
        std::process::exit(1);
    }
}

fn build() -> Result<()> {
    println!("cargo::rerun-if-changed=src/shim");
    println!("cargo::rerun-if-changed=include/xmppsync.h");
    for variable in ["OPENLDAP_SRC", "OPENLDAP_BUILD", OTHER_SLAPD, "XDG_DATA_HOME", "HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let headers = find_headers()?;
    check_headers(&headers)?;
    check_version(&headers)?;
    compile_shim(&headers);
    bind_boundary()?;
    // slapd closes the module after term_module; a thread-local destructor or a late log line must not find
    // the code unmapped.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    Ok(())
}

fn find_headers() -> Result<Headers> {
    match (env::var_os("OPENLDAP_SRC"), env::var_os("OPENLDAP_BUILD")) {
        (Some(source), build) => {
            let source = PathBuf::from(source);
            let build = build.map_or_else(|| source.clone(), PathBuf::from);
            Ok(Headers { source, build })
        }
        (None, Some(_)) => Err("OPENLDAP_BUILD is set and OPENLDAP_SRC is not: set both, or neither".into()),
        (None, None) => headers_of_setup(),
    }
}

/// The headers that `cargo xtask setup` made for the installed slapd.
fn headers_of_setup() -> Result<Headers> {
    let data = match env::var_os("XDG_DATA_HOME").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env::var_os("HOME").ok_or("neither HOME nor XDG_DATA_HOME is set")?)
            .join(".local/share"),
    };
    let version = installed_slapd().ok_or("slapd is not installed as a Debian package: run `cargo xtask setup`, or set OPENLDAP_SRC and OPENLDAP_BUILD")?;
    let place = data.join("xmppsync").join(format!("openldap-{version}"));
    let note = place.join(SETUP_NOTE);
    println!("cargo::rerun-if-changed={}", note.display());
    match std::fs::read_to_string(&note) {
        Ok(made_for) if made_for.trim() == version => {}
        Ok(made_for) => {
            return Err(format!(
                "the headers in {} are those of slapd {}, installed is {version}: run `cargo xtask setup`",
                place.display(),
                made_for.trim()
            )
            .into());
        }
        Err(_) => {
            return Err(format!(
                "the headers of slapd {version} are not in {}: run `cargo xtask setup`",
                place.display()
            )
            .into());
        }
    }
    Ok(Headers { source: place.join("src"), build: place.join("build") })
}

fn installed_slapd() -> Option<String> {
    let output = Command::new("dpkg-query").args(["-W", "-f", "${Version}", "slapd"]).output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !version.is_empty()).then_some(version)
}

fn check_headers(headers: &Headers) -> Result<()> {
    let needed = [
        (headers.source.join("servers/slapd/slap.h"), "OPENLDAP_SRC"),
        (headers.source.join("include/ldap.h.in"), "OPENLDAP_SRC"),
        (headers.build.join("include/portable.h"), "OPENLDAP_BUILD"),
        (headers.build.join("include/ldap_features.h"), "OPENLDAP_BUILD"),
        (headers.build.join("include/lber_types.h"), "OPENLDAP_BUILD"),
        (headers.build.join("include/ldap_config.h"), "OPENLDAP_BUILD"),
    ];
    for (file, variable) in needed {
        if !file.is_file() && !exists_as_header(&file) {
            return Err(format!(
                "{} is missing: run `cargo xtask setup`, or set {variable} to another place",
                file.display()
            )
            .into());
        }
    }
    Ok(())
}

/// The module is refused by any other slapd than the one of the headers; the build says so earlier.
fn check_version(headers: &Headers) -> Result<()> {
    let file = headers.build.join("include/ldap_features.h");
    println!("cargo::rerun-if-changed={}", file.display());
    let version = version_of(&std::fs::read_to_string(&file)?)
        .ok_or_else(|| format!("{} defines no LDAP_VENDOR_VERSION", file.display()))?;
    if let Some(wanted) = env::var_os(OTHER_SLAPD).filter(|wanted| !wanted.is_empty()) {
        return if wanted.to_str() == Some(version.as_str()) {
            Ok(())
        } else {
            Err(format!(
                "{OTHER_SLAPD} is {}, and {} is of OpenLDAP {version}: set OPENLDAP_SRC and OPENLDAP_BUILD to that version, or unset {OTHER_SLAPD}",
                wanted.display(),
                file.display()
            )
            .into())
        };
    }
    match installed_slapd() {
        Some(installed) if !is_version(&installed, &version) => Err(format!(
            "the headers in {} are those of OpenLDAP {version}, installed is slapd {installed}: unset OPENLDAP_SRC and OPENLDAP_BUILD and run `cargo xtask setup`, or set {OTHER_SLAPD}={version} to build for another slapd than the installed one",
            headers.build.display()
        )
        .into()),
        // A slapd that is no Debian package cannot be asked; it looks for itself when it loads the module.
        _ => Ok(()),
    }
}

/// `2.5.13`, from the definitions of the three numbers.
fn version_of(features: &str) -> Option<String> {
    let number = |name: &str| {
        features.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("#define") && words.next() == Some(name)).then(|| words.next())?
        })
    };
    let (major, minor) = (number("LDAP_VENDOR_VERSION_MAJOR")?, number("LDAP_VENDOR_VERSION_MINOR")?);
    Some(format!("{major}.{minor}.{}", number("LDAP_VENDOR_VERSION_PATCH")?))
}

/// Whether a Debian version such as `2.5.13+dfsg-5` is of this release.
fn is_version(debian: &str, release: &str) -> bool {
    let upstream = debian.rsplit_once(':').map_or(debian, |(_, version)| version);
    let rest = upstream.strip_prefix(release);
    rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit() || next == '.'))
}

/// `ldap.h` is in the release as it is; a checkout of the repository makes it from a template.
fn exists_as_header(template: &Path) -> bool {
    template.extension().is_some_and(|extension| extension == "in") && template.with_extension("").is_file()
}

fn compile_shim(headers: &Headers) {
    let mut shim = cc::Build::new();
    shim.files(SHIM.iter().map(|file| Path::new("src/shim").join(file)))
        .include("include")
        .include(headers.build.join("include"))
        .include(headers.source.join("include"))
        .include(headers.source.join("servers/slapd"))
        .include(headers.source.join("libraries/liblmdb"))
        // Debian compiles slapd with it, and it decides the size of off_t.
        .define("_FILE_OFFSET_BITS", "64")
        .std("gnu11")
        .flag_if_supported("-Wno-unused-parameter")
        .flag_if_supported("-Wno-sign-compare")
        .flag_if_supported("-Wno-missing-field-initializers")
        // Messages that are too long are cut on purpose.
        .flag_if_supported("-Wno-format-truncation")
        .warnings_into_errors(env::var_os("CI").is_some());
    shim.compile("xmppsync_shim");
}

fn bind_boundary() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("boundary.rs");
    bindgen::Builder::default()
        .header("include/xmppsync.h")
        .allowlist_item("xs_.*|XS_.*|xsr_instance")
        // Rust defines these itself.
        .blocklist_function("xsr_.*")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(true)
        .layout_tests(true)
        .generate()?
        .write_to_file(out)?;
    Ok(())
}
