//! The commands that take long work, with parameters that make them short.

use std::process::Command;

use anyhow::Context;
use serde_json::Value;

#[test]
fn the_benchmark_measures_all_kinds_of_replication() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bench.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = command.args(["bench", "live", "--quick", "--json"]).arg(&file).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}\n{errors}", output.status);

    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
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

#[test]
fn an_empty_server_gets_everything_from_another_one() {
    let (succeeded, said, cells) =
        measured(&["load", "--quick", "--only", "syncrepl,delta-syncrepl"]).unwrap();
    assert!(succeeded, "{said}");
    assert_eq!(cells.len(), 2, "{said}");
    for cell in cells {
        let figure = |name: &str| cell["median"][name].as_f64();
        assert_eq!(cell["equal"], "yes", "{cell}");
        assert!(figure("entries_per_s").is_some_and(|rate| rate > 0.0), "{cell}");
        assert!(figure("whole_after_answer_s") < figure("whole_s"), "{cell}");
        assert!(figure("target_memory_mib").is_some_and(|memory| memory > 1.0), "{cell}");
    }
}

#[test]
fn a_server_that_lacks_something_at_the_deadline_fails_the_command() {
    let arguments = ["load", "--quick", "--only", "syncrepl", "--entries", "3000", "--deadline", "0"];
    let (succeeded, said, cells) = measured(&arguments).unwrap();
    assert!(!succeeded, "{said}");
    assert_eq!(cells[0]["equal"], "not-whole", "{said}");
    assert!(said.contains("| **not whole** |"), "{said}");
}

#[test]
fn a_server_that_was_down_gets_what_it_missed() {
    let (succeeded, said, cells) = measured(&["catchup", "--quick", "--adds", "20"]).unwrap();
    assert!(succeeded, "{said}");
    let kinds: Vec<&str> = cells.iter().map(|cell| cell["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["xmppsync", "syncrepl", "delta-syncrepl"]);
    for cell in cells {
        assert_eq!(cell["equal"], "yes", "{cell}");
        assert!(cell["median"]["changes_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{cell}");
        assert_eq!(cell["median"].get("ejabberd_cpu_s").is_some(), cell["kind"] == "xmppsync", "{cell}");
    }
}

/// Runs a benchmark: whether it succeeded, all that it printed, the rows as JSON.
fn measured(arguments: &[&str]) -> anyhow::Result<(bool, String, Vec<Value>)> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("bench.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = command.arg("bench").args(arguments).arg("--json").arg(&file).output()?;
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    let report: Value = serde_json::from_slice(&std::fs::read(&file).context(printed.clone())?)?;
    let cells = report["cells"].as_array().context("no rows")?.clone();
    Ok((output.status.success(), printed, cells))
}
