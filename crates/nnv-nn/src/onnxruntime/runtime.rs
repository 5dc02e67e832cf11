// SPDX-License-Identifier: MPL-2.0
//! Finding and loading ONNX Runtime, once per process.
//!
//! `ort` panics in any call made before a library was loaded, and looks for relative paths beside
//! the executable (`gst-launch-1.0`), not beside the plugin. So the library is probed here, by
//! absolute path, and nothing of `ort` is touched before [`ort::init_from`] has succeeded.

use std::ffi::{CStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::error::{NnError, Result};
use crate::files::open_regular;

/// ONNX Runtime as loaded into this process.
#[derive(Debug)]
pub struct Runtime {
    environment: Environment,
    path: PathBuf,
    version: String,
}

impl Runtime {
    /// Loads ONNX Runtime at the first call and returns the same result, success or failure, ever
    /// after.
    ///
    /// Searched, in order: `NNV_ORT_LIBRARY`, then `ORT_DYLIB_PATH` (a file or a folder; when set,
    /// nothing else is tried); the folder of the plugin and its sub-folder `nnv`;
    /// `LD_LIBRARY_PATH`; the usual library folders; `gstreamer-1.0/nnv` in these, and in the
    /// prefix of a program that lies in a folder `bin`. In folders, `libonnxruntime.so` is
    /// preferred over `libonnxruntime.so.1.2.3`, as Python wheels name it, and higher versions over
    /// lower ones.
    ///
    /// # Errors
    /// [`NnError::Runtime`] with what was tried and what to do.
    pub fn get() -> Result<&'static Runtime> {
        static RUNTIME: OnceLock<Result<Runtime>> = OnceLock::new();
        RUNTIME.get_or_init(load).as_ref().map_err(Clone::clone)
    }

    /// Version of the library, for example `1.22.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Absolute path of the library.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }
}

/// Receives ONNX Runtime's messages of level warning and above: severity (`true` for errors) and
/// text.
pub type LogSink = fn(error: bool, message: &str);

static LOG_SINK: OnceLock<LogSink> = OnceLock::new();

/// Sets where ONNX Runtime's own messages go; without it they are dropped (failures are returned as
/// errors anyway). The first call in a process wins.
pub fn set_log_sink(sink: LogSink) {
    let _ = LOG_SINK.set(sink);
}

const LIBRARY_STEM: &str = if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else if cfg!(windows) {
    "onnxruntime.dll"
} else {
    "libonnxruntime.so"
};

/// What may be tried: files as given, or folders to look into.
fn search_places() -> Vec<PathBuf> {
    for variable in ["NNV_ORT_LIBRARY", "ORT_DYLIB_PATH"] {
        if let Some(value) = std::env::var_os(variable).filter(|v| !v.is_empty()) {
            // An explicit choice that does not work must be an error, not a silent use of another
            // library.
            return vec![absolute(PathBuf::from(value))];
        }
    }
    let mut places = Vec::new();
    if let Some(dir) = own_folder() {
        let nested = dir.join("nnv");
        places.push(dir);
        // The program of that name is no library.
        places.extend((!nested.is_file()).then_some(nested));
    }
    if let Some(paths) = std::env::var_os("LD_LIBRARY_PATH") {
        places.extend(std::env::split_paths(&paths).filter(|p| p.is_absolute()));
    }
    let triplet = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let usual = [
        "/usr/local/lib",
        &triplet,
        "/usr/lib64",
        "/usr/lib",
        "/opt/onnxruntime/lib",
        "/opt/homebrew/lib",
    ];
    places.extend(usual.iter().map(PathBuf::from).filter(|p| p.is_dir()));
    places.extend(beside_plugin(own_folder().as_deref(), &usual));
    places.dedup();
    places
}

/// Where the plugin keeps its copy, for programs that are installed with it: in the same prefix, or
/// where GStreamer has its plugins.
fn beside_plugin(own: Option<&Path>, usual: &[&str]) -> Vec<PathBuf> {
    let triplet = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    let prefix = own
        .filter(|own| own.ends_with("bin"))
        .and_then(Path::parent);
    let own = prefix
        .into_iter()
        .flat_map(|prefix| ["lib", &triplet, "lib64"].map(|lib| prefix.join(lib)));
    own.chain(usual.iter().map(PathBuf::from))
        .map(|lib| lib.join("gstreamer-1.0/nnv"))
        .filter(|folder| folder.is_dir())
        .collect()
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Folder of the shared object or executable that holds this code.
#[cfg(unix)]
fn own_folder() -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;

    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let address = own_folder as fn() -> Option<PathBuf> as *const libc::c_void;
    // SAFETY: `info` is writable and the address is one of our own functions.
    let name = unsafe {
        if libc::dladdr(address, info.as_mut_ptr()) == 0 {
            return None;
        }
        let name = info.assume_init().dli_fname;
        if name.is_null() {
            return None;
        }
        CStr::from_ptr(name)
    };
    let path = absolute(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())));
    // A plugin may be a link into a build folder; the library beside the link is what the user
    // meant.
    path.parent().map(Path::to_path_buf)
}

#[cfg(not(unix))]
fn own_folder() -> Option<PathBuf> {
    std::env::current_exe()
        .ok()?
        .parent()
        .map(Path::to_path_buf)
}

/// Libraries in a folder, best first.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<(Vec<u32>, OsString)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let rest = name.to_str()?.strip_prefix(LIBRARY_STEM)?;
            let version = match rest {
                "" => vec![u32::MAX],
                _ => rest
                    .strip_prefix('.')?
                    .split('.')
                    .map(|n| n.parse().ok())
                    .collect::<Option<_>>()?,
            };
            Some((version, name))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found
        .into_iter()
        .map(|(_, name)| folder.join(name))
        .collect()
}

fn load() -> Result<Runtime> {
    let places = search_places();
    let searched = places
        .iter()
        .map(|p| p.display().to_string())
        .collect::<Vec<_>>()
        .join(", ");
    let mut refused = Vec::new();
    for place in &places {
        let candidates = if place.is_dir() {
            libraries_in(place)
        } else {
            vec![place.clone()]
        };
        for candidate in candidates {
            match probe(&candidate).and_then(|version| Ok((version, start(&candidate)?))) {
                Ok((version, environment)) => {
                    return Ok(Runtime {
                        environment,
                        path: candidate,
                        version,
                    });
                }
                Err(what) => refused.push(format!("{}: {what}", candidate.display())),
            }
        }
    }
    let what = if refused.is_empty() {
        format!("no {LIBRARY_STEM} was found")
    } else {
        refused.join("; ")
    };
    Err(NnError::Runtime { what, searched })
}

/// Checks that a file is a usable ONNX Runtime, so that `ort` cannot panic on it, and returns its
/// version.
fn probe(path: &Path) -> Result<String, String> {
    if !path.exists() {
        return Err("the file does not exist".into());
    }
    let file = open_regular(path).map_err(|e| format!("it cannot be opened: {e}"))?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    super::elf::check(&mut { file })?;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    drop(file);
    // SAFETY: loading runs the initialisers of a library that the user or the system chose.
    let library = unsafe { libloading::Library::new(path) }.map_err(|e| {
        // What the system says is the error's source.
        let why = std::error::Error::source(&e).map(|source| format!(": {source}"));
        format!("it cannot be loaded ({e}{})", why.unwrap_or_default())
    })?;
    // SAFETY: the symbol has this signature in every release of ONNX Runtime; pointers are checked
    // before use.
    let version = unsafe {
        let get_base = library
            .get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase\0")
            .map_err(|_| "it is not ONNX Runtime (no symbol OrtGetApiBase)".to_string())?;
        let base = get_base()
            .as_ref()
            .ok_or("OrtGetApiBase returned nothing")?;
        let version = CStr::from_ptr((base.GetVersionString)())
            .to_string_lossy()
            .into_owned();
        if (base.GetApi)(ort::sys::ORT_API_VERSION).is_null() {
            return Err(format!(
                "its version {version} is too old, 1.{}.0 is needed",
                ort::sys::ORT_API_VERSION
            ));
        }
        version
    };
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    if numbers.next() != Some(1) || numbers.next().unwrap_or(0) < ort::MINOR_VERSION {
        return Err(format!(
            "its version {version} does not fit, 1.{}.0 or later 1.x is needed",
            ort::MINOR_VERSION
        ));
    }
    // `ort` opens the same file next; unloading and loading it again in between would only run its
    // destructors.
    std::mem::forget(library);
    Ok(version)
}

fn start(path: &Path) -> Result<Environment, String> {
    let environment = ort::init_from(path)
        .map_err(|e| e.to_string())?
        .with_name("nnv")
        .with_telemetry(false)
        .with_logger(Arc::new(
            |level, _category, _id, _location, message: &str| {
                if let (LogLevel::Warning | LogLevel::Error | LogLevel::Fatal, Some(sink)) =
                    (level, LOG_SINK.get())
                {
                    sink(!matches!(level, LogLevel::Warning), message);
                }
            },
        ))
        .build()
        .map_err(|e| e.to_string())?;
    environment.set_log_level(LogLevel::Warning);
    // Only memory is at stake: without it every session keeps scratch memory of its own.
    let _ = share_scratch_memory(&environment);
    Ok(environment)
}

/// Registers one arena for the scratch memory of all sessions, which ask for it by
/// `with_env_allocators`. Networks of a frame run one after the other, so they can use the same
/// memory: measured at 1280×720 with encoder, 97 MiB instead of 262 for the process, at the same
/// speed.
fn share_scratch_memory(environment: &Environment) -> ort::Result<()> {
    use ort::AsPointer;
    use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};

    let info = MemoryInfo::new(
        AllocationDevice::CPU,
        0,
        AllocatorType::Arena,
        MemoryType::Default,
    )?;
    let api = ort::api();
    let mut config = std::ptr::null_mut();
    // SAFETY: the environment and `info` outlive the calls; the configuration is copied by the
    // second call and released once; the arena belongs to the environment.
    unsafe {
        // Unlimited, growing by powers of two, default chunk sizes.
        ort::Error::result_from_status((api.CreateArenaCfg)(0, 0, -1, -1, &mut config))?;
        let status =
            (api.CreateAndRegisterAllocator)(environment.ptr().cast_mut(), info.ptr(), config);
        (api.ReleaseArenaCfg)(config);
        ort::Error::result_from_status(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_order_prefers_plain_name_then_higher_version() {
        let dir = std::env::temp_dir().join(format!("nnv-runtime-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for suffix in [".1.9.0", ".1.22.1", "", ".1.31.1", ".txt", "_providers"] {
            std::fs::write(dir.join(format!("{LIBRARY_STEM}{suffix}")), b"").unwrap();
        }
        let names: Vec<_> = libraries_in(&dir)
            .iter()
            .map(|p| p.file_name().unwrap().to_str().unwrap().to_string())
            .collect();
        std::fs::remove_dir_all(&dir).unwrap();
        let expected: Vec<_> = ["", ".1.31.1", ".1.22.1", ".1.9.0"]
            .iter()
            .map(|s| format!("{LIBRARY_STEM}{s}"))
            .collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_file_that_is_no_library_is_an_error() {
        let path = std::env::temp_dir().join(format!("nnv-not-a-library-{}", std::process::id()));
        std::fs::write(&path, b"not a library").unwrap();
        let error = probe(&path).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert!(error.contains("shared library"), "{error}");
        assert!(probe(&path).unwrap_err().contains("does not exist"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pipes_cut_libraries_and_other_libraries_are_errors_that_say_why() {
        let folder = crate::files::tests::TempFolder::new("runtime");
        let error = probe(&folder.pipe("libonnxruntime.so")).unwrap_err();
        assert!(error.contains("not a regular file"), "{error}");
        // A sound library that is not ONNX Runtime, and the same cut off.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5))
            .find(|path| path.contains("libc.so") || path.contains("libc-"))
            .expect("tests use the C library");
        let error = probe(Path::new(libc)).unwrap_err();
        assert!(error.contains("OrtGetApiBase"), "{error}");
        let bytes = std::fs::read(libc).unwrap();
        let cut = folder.0.join("cut.so");
        for len in [100, 5000, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&cut, &bytes[..len]).unwrap();
            let error = probe(&cut).unwrap_err();
            assert!(error.contains("cut off"), "{error}");
        }
        // One whose headers are right and whose code the system does not take.
        let mut foreign = bytes.clone();
        foreign[18..20].copy_from_slice(&[0x34, 0x12]);
        std::fs::write(&cut, &foreign).unwrap();
        let error = probe(&cut).unwrap_err();
        let why = error.split("dlopen failed: ").nth(1).unwrap_or_default();
        assert!(why.contains("cut.so"), "{error}");
    }

    #[test]
    fn own_folder_is_found() {
        assert!(own_folder().unwrap().is_absolute());
    }
}
