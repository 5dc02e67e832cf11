// SPDX-License-Identifier: MPL-2.0
//! Nothing leaves the machine: all works where there is no network to leave by.

use std::process::Command;

use crate::util::*;

const CHILD: &str = "no_network::encodes_and_decodes_alone";

/// Run by the test below, in a network namespace of its own.
#[test]
#[ignore = "run by nothing_needs_a_network"]
fn encodes_and_decodes_alone() {
    within(|| {
        let interfaces = std::fs::read_to_string("/proc/net/dev").unwrap();
        let names: Vec<_> = interfaces
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, _)| name.trim())
            .collect();
        assert!(names.iter().all(|name| *name == "lo"), "{names:?}");
        assert!(std::net::TcpStream::connect("127.0.0.1:9").is_err());
        let units = encode(&i420(64, 48), 6, &[("frame-checksum", "true")]);
        let file = TempFile::with("alone.nnv", &join(&units));
        assert_eq!(decode(file.path(), "").sound().shown.len(), 6);
    });
}

#[test]
fn nothing_needs_a_network() {
    let this = std::env::current_exe().unwrap();
    let alone = |flags: &str| {
        let mut command = Command::new("unshare");
        command.arg(flags);
        command
    };
    let allowed = |flags: &&&str| {
        let probe = alone(flags).arg("true").output();
        probe.is_ok_and(|out| out.status.success())
    };
    let Some(flags) = ["-n", "-rn"].iter().find(allowed) else {
        eprintln!("SKIPPED: network namespaces (unshare -n) are not permitted here");
        return;
    };
    let out = alone(flags)
        .arg(this)
        .args(["--exact", CHILD, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.success() && text.contains("1 passed"),
        "{text}{errors}"
    );
}
