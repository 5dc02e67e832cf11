// SPDX-License-Identifier: MPL-2.0
//! The page: one file with everything in it.

use serde::Serialize;

use crate::failure::Result;

const HTML: &str = include_str!("../../assets/inspect.html");
const STYLE: &str = include_str!("../../assets/inspect.css");
const SCRIPT: &str = include_str!("../../assets/inspect.js");
const PLOT_STYLE: &str = include_str!("../../assets/uplot/uPlot.min.css");
const PLOT_SCRIPT: &str = include_str!("../../assets/uplot/uPlot.iife.min.js");
const PLOT_LICENCE: &str = include_str!("../../assets/uplot/LICENSE");

/// Bytes of a page without data.
pub const FIXED: usize = HTML.len()
    + STYLE.len()
    + SCRIPT.len()
    + PLOT_STYLE.len()
    + PLOT_SCRIPT.len()
    + PLOT_LICENCE.len();

/// The page with these data.
///
/// # Errors
/// None, in memory.
pub fn html(data: &impl Serialize) -> Result<String> {
    // Within a script element `<` might begin its end.
    let data = serde_json::to_string(data)?.replace('<', "\\u003c");
    let mut out = String::with_capacity(FIXED + data.len());
    let mut rest = HTML;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            break;
        };
        out.push_str(match name {
            "style" => STYLE,
            "script" => SCRIPT,
            "plot-style" => PLOT_STYLE,
            "plot-script" => PLOT_SCRIPT,
            "plot-licence" => PLOT_LICENCE,
            _ => &data,
        });
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_everything_and_asks_nobody() {
        let page = html(&serde_json::json!({ "file": "</script><b>.nnv" })).unwrap();
        assert!(page.contains(r#"{"file":"\u003c/script>\u003cb>.nnv"}"#));
        assert!(!page.contains("{{"), "every place is filled");
        assert!(page.contains("default-src 'none'"));
        for part in [STYLE, SCRIPT, PLOT_STYLE, PLOT_SCRIPT, PLOT_LICENCE] {
            assert!(page.contains(part));
        }
        for tag in ["<link", "<iframe", "src=\"http", "@import", "fetch("] {
            assert!(!page.contains(tag), "{tag}");
        }
    }
}
