// SPDX-License-Identifier: MPL-2.0
//! Version facts for the plugin's description.

fn main() {
    gst_plugin_version_helper::info();
}
