//! The commands that take long work, with parameters that make them short.

use std::process::Command;

#[test]
fn the_benchmark_measures_all_kinds_of_replication() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bench.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = command.args(["bench", "live", "--quick", "--json"]).arg(&file).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}\n{errors}", output.status);

    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let cells = report["cells"].as_array().unwrap();
    let kinds: Vec<&str> = cells.iter().map(|cell| cell["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["none", "xmppsync", "syncrepl", "delta-syncrepl"]);
    for cell in cells {
        let replicates = cell["kind"] != "none";
        let figure = |name: &str| cell["median"][name].as_f64();
        assert!(figure("written_per_s").is_some_and(|rate| rate > 0.0), "{cell}");
        assert!(figure("write_p50_ms") <= figure("write_p99_ms"), "{cell}");
        assert_eq!(figure("converged_per_s").is_some(), replicates, "{cell}");
        assert_eq!(figure("visible_p50_ms").is_some(), replicates, "{cell}");
        assert!(figure("visible_p50_ms").is_none_or(|time| Some(time) > figure("write_p50_ms")), "{cell}");
    }
    let rows = said.lines().filter(|line| line.starts_with("| tmpfs |")).count();
    assert_eq!(rows, cells.len(), "{said}");
}

#[test]
fn the_benchmark_writes_to_all_servers_at_once() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["bench", "live", "--quick", "--only", "xmppsync", "--peers", "2", "--writers", "all"]);
    let output = command.output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}\n{errors}", output.status);
    assert!(said.lines().any(|line| line.starts_with("| tmpfs | 2 | xmppsync |")), "{said}");
    assert!(said.contains("| yes |"), "{said}");
}
