//! What is installed is what `moduleload libxmppsync` finds.

use std::process::Command;

use xmppsync_lab::{LabDir, Slapd, SlapdConfig, SlapdOptions, module_path};

#[test]
fn the_installed_overlay_is_loaded_by_its_name() {
    let lab = LabDir::new().unwrap();
    let place = lab.path().join("modules");
    let mut install = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let install = install.args(["install", "--to"]).arg(&place);
    // Twice: an installed one is replaced.
    for _ in 0..2 {
        let output = install.env("XMPPSYNC_MODULE", module_path().unwrap()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let module = place.join("libxmppsync.so");
        assert!(said.contains(&module.display().to_string()) && said.contains("moduleload libxmppsync"));
        assert!(module.is_file());
    }

    let mut config = SlapdConfig { modules: vec!["libxmppsync".to_owned()], ..SlapdConfig::default() };
    config.databases[0].overlay_lines =
        ["overlay xmppsync", "xmppsync-replicated off"].map(str::to_owned).to_vec();
    let text = config.text(&lab.path().join("a"));
    let usual = "modulepath /usr/lib/ldap\n";
    assert!(text.contains(usual));
    // First, so that one that this machine has is not taken for it.
    let text = text.replace(usual, &format!("modulepath {}:/usr/lib/ldap\n", place.display()));
    let mut slapd = Slapd::prepare_text(&lab, "a", &text, config, SlapdOptions::default()).unwrap();
    slapd.slaptest().unwrap();
    slapd.start().unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", slapd.pid().unwrap())).unwrap();
    assert!(maps.contains(&place.join("libxmppsync.so").display().to_string()), "{maps}");
    assert!(slapd.stop().unwrap().status.success());
}
