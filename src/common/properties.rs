// SPDX-License-Identifier: MPL-2.0
//! Properties of every element that runs a network.

use std::path::PathBuf;

use gst::glib;
use gst::prelude::*;
use nnv_nn::{ModelSource, Provider, RuntimeOptions};

/// Where the networks run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNnvExecutionProvider")]
pub enum ExecutionProvider {
    /// The fastest that passes the known-answer test.
    #[default]
    #[enum_value(
        name = "Auto: the fastest provider that passes the known-answer test",
        nick = "auto"
    )]
    Auto,
    /// ONNX Runtime's CPU provider.
    #[enum_value(name = "CPU: int8 kernels of the processor", nick = "cpu")]
    Cpu,
    /// ONNX Runtime's CUDA provider.
    #[enum_value(name = "CUDA: NVIDIA GPU through cuDNN", nick = "cuda")]
    Cuda,
    /// ONNX Runtime's TensorRT provider.
    #[enum_value(name = "TensorRT: NVIDIA GPU through TensorRT", nick = "tensorrt")]
    TensorRt,
}

/// The properties that every element running a network has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommonSettings {
    /// Name of a bundle, `None`: what the stream asks for (decoder).
    pub model: Option<String>,
    /// Folder of a bundle that does not ship with the plugin.
    pub model_path: Option<PathBuf>,
    pub provider: ExecutionProvider,
    pub device_id: u32,
    /// 0: as many as there are cores.
    pub threads: u32,
}

impl CommonSettings {
    pub fn new(model: Option<&str>) -> Self {
        Self {
            model: model.map(Into::into),
            model_path: None,
            provider: ExecutionProvider::default(),
            device_id: 0,
            threads: 0,
        }
    }

    /// Sets a common property; `false` where `pspec` is not one.
    pub fn set(&mut self, value: &glib::Value, pspec: &glib::ParamSpec) -> bool {
        // The type system has checked the type of `value` against `pspec`.
        match pspec.name() {
            "model" => {
                self.model = value
                    .get::<Option<String>>()
                    .expect("type checked upstream")
                    .filter(|name| !name.is_empty());
            }
            "model-path" => {
                self.model_path = value
                    .get::<Option<String>>()
                    .expect("type checked upstream")
                    .filter(|path| !path.is_empty())
                    .map(PathBuf::from);
            }
            "execution-provider" => {
                self.provider = value.get().expect("type checked upstream");
            }
            "device-id" => self.device_id = value.get().expect("type checked upstream"),
            "threads" => self.threads = value.get().expect("type checked upstream"),
            _ => return false,
        }
        true
    }

    /// Value of a common property; `None` where `pspec` is not one (or is computed by the element).
    pub fn get(&self, pspec: &glib::ParamSpec) -> Option<glib::Value> {
        Some(match pspec.name() {
            "model" => self.model.to_value(),
            "model-path" => self
                .model_path
                .as_ref()
                .map(|p| p.to_string_lossy().into_owned())
                .to_value(),
            "execution-provider" => self.provider.to_value(),
            "device-id" => self.device_id.to_value(),
            "threads" => self.threads.to_value(),
            _ => return None,
        })
    }
}

impl CommonSettings {
    /// How networks shall run.
    pub fn runtime_options(&self) -> RuntimeOptions {
        RuntimeOptions {
            provider: match self.provider {
                ExecutionProvider::Auto => None,
                ExecutionProvider::Cpu => Some(Provider::Cpu),
                ExecutionProvider::Cuda => Some(Provider::Cuda),
                ExecutionProvider::TensorRt => Some(Provider::TensorRt),
            },
            device_id: i32::try_from(self.device_id).unwrap_or(i32::MAX),
            threads: self.threads as usize,
            ..RuntimeOptions::default()
        }
    }

    /// The bundle to use where the user names one.
    pub fn source(&self) -> Option<ModelSource> {
        match (&self.model_path, &self.model) {
            (Some(path), _) => Some(ModelSource::Folder(path.clone())),
            (None, Some(name)) => Some(ModelSource::Embedded(name.clone())),
            (None, None) => None,
        }
    }
}

/// Specifications of the common properties. `model` is the default of the property of that name,
/// `stats` lists the fields of the structure.
pub fn properties(model: Option<&str>, model_blurb: &str, stats: &str) -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecString::builder("model")
            .nick("Model")
            .blurb(model_blurb)
            .default_value(model)
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("model-path")
            .nick("Model path")
            .blurb(
                "Folder of a bundle (bundle.toml and its files) to use instead of the built-in \
                 ones (unset: built-in)",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder::<ExecutionProvider>("execution-provider")
            .nick("Execution provider")
            .blurb(
                "Where the networks run; anything but auto that cannot run or fails the \
                 known-answer test is an error, never a fallback",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("device-id")
            .nick("Device")
            .blurb("Index of the GPU for cuda and tensorrt, 0 is the first")
            .maximum(255)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("threads")
            .nick("Threads")
            .blurb("Number of CPU threads (0: as many as there are cores)")
            .maximum(256)
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("active-execution-provider")
            .nick("Active execution provider")
            .blurb("Provider that runs the networks now (unset: none is running)")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb(stats)
            .read_only()
            .build(),
    ]
}
