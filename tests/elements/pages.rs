// SPDX-License-Identifier: MPL-2.0
//! The pipelines of the pages can be built: elements, properties, values and links are there.

use crate::util::*;

/// Descriptions of the pipelines in a page, for `gst_parse_launch`.
fn pipelines(page: &str) -> Vec<String> {
    let joined = page.replace("\\\n", " ");
    joined
        .lines()
        .filter_map(|line| line.trim().strip_prefix("gst-launch-1.0 "))
        .map(|line| line.trim_start_matches("-e ").to_string())
        .collect()
}

#[test]
fn pipelines_of_the_pages_can_be_built() {
    init();
    let (mut built, mut missing) = (0, Vec::new());
    for (name, page) in [
        ("README.md", include_str!("../../README.md")),
        ("docs/start.md", include_str!("../../docs/start.md")),
        ("docs/pipelines.md", include_str!("../../docs/pipelines.md")),
    ] {
        let all = pipelines(page);
        assert!(!all.is_empty(), "{name}");
        for description in all {
            match gst::parse::launch(&description) {
                Ok(_) => built += 1,
                Err(e) if e.matches(gst::ParseError::NoSuchElement) => {
                    let what = e.to_string();
                    assert!(!what.contains("nn"), "{name}: {description}: {what}");
                    missing.push(what);
                }
                Err(e) => panic!("{name}: {description}: {e}"),
            }
        }
    }
    for what in &missing {
        eprintln!("\n!! SKIPPED: a pipeline of the pages was not built: {what}\n");
    }
    assert!(built > missing.len(), "{built} built, {missing:?}");
}
