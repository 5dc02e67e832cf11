// SPDX-License-Identifier: MPL-2.0
//! The shared library libvmaf: found at run time, behind safe types. All unsafe code is here.
//!
//! Structures are those of version 3. Version 2 knows them without the last member of
//! [`Configuration`] and of [`RawPicture`]: it does not look at the one, nor touch the other.
#![cfg_attr(not(any(unix, windows)), allow(dead_code))]

use std::ffi::{CString, OsStr, OsString, c_char, c_int, c_uint, c_void};
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;

use super::VmafError;
use crate::plane::{Sample, Samples};
use crate::{PlaneView, peak};

/// Names the file of the library in place of those of the system.
const VARIABLE: &str = "NNV_VMAF_LIBRARY";

/// Names that the system knows it by, newest first.
const NAMES: [&str; 2] = if cfg!(target_os = "macos") {
    ["libvmaf.3.dylib", "libvmaf.1.dylib"]
} else if cfg!(windows) {
    ["libvmaf-3.dll", "libvmaf.dll"]
} else {
    ["libvmaf.so.3", "libvmaf.so.1"]
};

#[repr(C)]
struct RawContext {
    _private: [u8; 0],
}

#[repr(C)]
struct RawModel {
    _private: [u8; 0],
}

/// `VmafConfiguration`.
#[repr(C)]
struct Configuration {
    log_level: c_int,
    threads: c_uint,
    subsample: c_uint,
    cpu_mask: u64,
    gpu_mask: u64,
}

/// `VmafModelConfig`.
#[repr(C)]
struct ModelConfiguration {
    name: *const c_char,
    flags: u64,
}

/// `VmafPicture`.
#[repr(C)]
struct RawPicture {
    format: c_int,
    bits: c_uint,
    width: [c_uint; 3],
    height: [c_uint; 3],
    /// In bytes.
    stride: [isize; 3],
    data: [*mut c_void; 3],
    reference: *mut c_void,
    private: *mut c_void,
}

/// What is called of the library, which stays loaded until the process ends.
#[derive(Debug)]
pub struct Functions {
    version: String,
    init: unsafe extern "C" fn(*mut *mut RawContext, Configuration) -> c_int,
    close: unsafe extern "C" fn(*mut RawContext) -> c_int,
    model_load:
        unsafe extern "C" fn(*mut *mut RawModel, *mut ModelConfiguration, *const c_char) -> c_int,
    model_destroy: unsafe extern "C" fn(*mut RawModel),
    use_features: unsafe extern "C" fn(*mut RawContext, *mut RawModel) -> c_int,
    picture_alloc: unsafe extern "C" fn(*mut RawPicture, c_int, c_uint, c_uint, c_uint) -> c_int,
    picture_unref: unsafe extern "C" fn(*mut RawPicture) -> c_int,
    read_pictures:
        unsafe extern "C" fn(*mut RawContext, *mut RawPicture, *mut RawPicture, c_uint) -> c_int,
    score: unsafe extern "C" fn(*mut RawContext, *mut RawModel, *mut f64, c_uint) -> c_int,
}

impl Functions {
    /// The library; the first that was found stays.
    ///
    /// # Errors
    /// [`VmafError::Missing`].
    pub fn get() -> Result<&'static Self, VmafError> {
        static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
        if let Some(functions) = FUNCTIONS.get() {
            return Ok(functions);
        }
        let named = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        let functions = Self::find(named.as_deref())?;
        Ok(FUNCTIONS.get_or_init(|| functions))
    }

    /// The file that is named, else the first of those of the system that is there.
    pub(super) fn find(named: Option<&OsStr>) -> Result<Self, VmafError> {
        let names: Vec<OsString> = match named {
            // A choice that does not work is an error, not a silent use of another library.
            Some(path) => {
                let path = PathBuf::from(path);
                let path = std::path::absolute(&path).unwrap_or(path);
                if !path.is_file() {
                    let path = path.display();
                    return Err(VmafError::Missing(format!("{path} is no file")));
                }
                vec![path.into()]
            }
            None => NAMES.map(OsString::from).to_vec(),
        };
        let mut why = Vec::new();
        for name in names {
            match Self::load(&name) {
                Ok(functions) => return Ok(functions),
                Err(what) => {
                    let name = name.display().to_string();
                    // The system's words begin with the name.
                    let what = what.strip_prefix(&format!("{name}: ")).unwrap_or(&what);
                    why.push(format!("{name}: {what}"));
                }
            }
        }
        Err(VmafError::Missing(why.join("; ")))
    }

    #[cfg(any(unix, windows))]
    fn load(name: &OsStr) -> Result<Self, String> {
        // SAFETY: loading runs the initialisers of a library that the user or the system chose.
        let library = unsafe { libloading::Library::new(name) }.map_err(|e| {
            let source = std::error::Error::source(&e).map(ToString::to_string);
            source.unwrap_or_else(|| e.to_string())
        })?;
        /// The function of that name, as whatever type is wanted.
        macro_rules! function {
            ($name:literal) => {{
                // SAFETY: functions of that name have this type in every release of versions 2 and
                // 3, save that structures grew at their ends.
                let symbol = unsafe { library.get(concat!($name, "\0").as_bytes()) };
                *symbol.map_err(|_| concat!("it has no function ", $name))?
            }};
        }
        let version: unsafe extern "C" fn() -> *const c_char = function!("vmaf_version");
        // SAFETY: it returns a string that is part of the library.
        let version = unsafe { std::ffi::CStr::from_ptr(version()) };
        let version = version.to_string_lossy().trim_start_matches('v').to_owned();
        // Builds from a cut-off history have a hash in its place, and no dot.
        let major = version.split_once('.').map(|(major, _)| major);
        if major.is_some_and(|major| !["2", "3"].contains(&major)) {
            return Err(format!("its version is {version}; 2 and 3 are supported"));
        }
        let functions = Self {
            version,
            init: function!("vmaf_init"),
            close: function!("vmaf_close"),
            model_load: function!("vmaf_model_load"),
            model_destroy: function!("vmaf_model_destroy"),
            use_features: function!("vmaf_use_features_from_model"),
            picture_alloc: function!("vmaf_picture_alloc"),
            picture_unref: function!("vmaf_picture_unref"),
            read_pictures: function!("vmaf_read_pictures"),
            score: function!("vmaf_score_at_index"),
        };
        // It stays loaded: functions of it are kept.
        std::mem::forget(library);
        Ok(functions)
    }

    #[cfg(not(any(unix, windows)))]
    fn load(_: &OsStr) -> Result<Self, String> {
        Err("there are no shared libraries here".into())
    }

    /// Its version, for example `3.0.0`.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// How chroma relates to luma: `VmafPixelFormat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chroma {
    Yuv420 = 1,
    Yuv422 = 2,
    Yuv444 = 3,
}

/// What all pictures of a context have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    width: u32,
    height: u32,
    bit_depth: u8,
    chroma: Chroma,
}

impl Format {
    /// That of planes Y, U and V.
    ///
    /// # Errors
    /// [`VmafError::Pictures`], where chroma has another size than those of 4:2:0, 4:2:2 and 4:4:4.
    pub fn of(planes: &[PlaneView<'_>; 3]) -> Result<Self, VmafError> {
        let [luma, u, v] = planes.each_ref().map(|p| (p.width(), p.height()));
        let (width, height) = luma;
        let half = |n: usize| n.div_ceil(2);
        let sides = [width, height].map(u32::try_from);
        let chroma = [
            ((half(width), half(height)), Chroma::Yuv420),
            ((half(width), height), Chroma::Yuv422),
            (luma, Chroma::Yuv444),
        ];
        let chroma = chroma.into_iter().find(|(size, _)| u == *size && v == u);
        let (Some((_, chroma)), [Ok(width), Ok(height)]) = (chroma, sides) else {
            return Err(VmafError::Pictures { luma, chroma: u });
        };
        Ok(Self {
            width,
            height,
            bit_depth: planes[0].bit_depth(),
            chroma,
        })
    }

    /// The shorter side.
    pub fn side(&self) -> u32 {
        self.width.min(self.height)
    }
}

/// A picture of the library's.
struct Picture {
    functions: &'static Functions,
    raw: RawPicture,
}

impl Picture {
    /// A copy.
    fn new(
        functions: &'static Functions,
        format: Format,
        planes: &[PlaneView<'_>; 3],
    ) -> Result<Self, VmafError> {
        let mut raw = RawPicture {
            format: 0,
            bits: 0,
            width: [0; 3],
            height: [0; 3],
            stride: [0; 3],
            data: [null_mut(); 3],
            reference: null_mut(),
            private: null_mut(),
        };
        let bits = format.bit_depth.into();
        let (width, height) = (format.width, format.height);
        // SAFETY: `raw` is writable and at least as large as the library's structure.
        let code = unsafe {
            (functions.picture_alloc)(&mut raw, format.chroma as c_int, bits, width, height)
        };
        check("vmaf_picture_alloc", code)?;
        let picture = Self { functions, raw };
        for (i, plane) in planes.iter().enumerate() {
            match plane.samples {
                Samples::U8(samples) => picture.fill(i, samples, plane),
                Samples::U16(samples) => picture.fill(i, samples, plane),
            }
        }
        Ok(picture)
    }

    fn fill<T: Sample>(&self, i: usize, samples: &[T], plane: &PlaneView<'_>) {
        // The library takes samples for indices of tables: none may be above the depth's greatest.
        let top = peak(plane.bit_depth()) as i32;
        let bits = plane.bit_depth();
        // The library rounds the sizes of chroma down.
        let height = plane.height().min(self.raw.height[i] as usize);
        let width = plane.width().min(self.raw.width[i] as usize);
        let rows = samples.chunks(plane.stride).take(height);
        for (y, row) in rows.enumerate() {
            let row = row[..width].iter().map(|v| v.wide().min(top));
            // SAFETY: the library allocated `height` rows of at least `width` samples for the
            // plane, `stride` bytes from one to the next, aligned for words, and nothing else knows
            // them yet. Samples are bytes where there are 8 bits, else words.
            unsafe {
                let start = self.raw.data[i].byte_offset(self.raw.stride[i] * y as isize);
                if bits == 8 {
                    let start = start.cast::<MaybeUninit<u8>>();
                    let out = std::slice::from_raw_parts_mut(start, width);
                    for (out, v) in out.iter_mut().zip(row) {
                        out.write(v as u8);
                    }
                } else {
                    let start = start.cast::<MaybeUninit<u16>>();
                    let out = std::slice::from_raw_parts_mut(start, width);
                    for (out, v) in out.iter_mut().zip(row) {
                        out.write(v as u16);
                    }
                }
            }
        }
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        // SAFETY: the library allocated it. What it has already taken back it has filled with
        // zeros, and refuses.
        unsafe { (self.functions.picture_unref)(&mut self.raw) };
    }
}

/// A trained model.
struct Model {
    functions: &'static Functions,
    raw: NonNull<RawModel>,
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: the library made it, and the context that knows it is closed.
        unsafe { (self.functions.model_destroy)(self.raw.as_ptr()) };
    }
}

/// An open `VmafContext`.
struct Handle {
    functions: &'static Functions,
    raw: NonNull<RawContext>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the library made it, and nothing uses it any more.
        unsafe { (self.functions.close)(self.raw.as_ptr()) };
    }
}

/// A measurement of frames in order, with its model.
pub struct Context {
    // Closed before the model goes.
    handle: Handle,
    model: Model,
    frames: u32,
}

// SAFETY: libvmaf's objects belong to no thread. What is one for the whole process (level of
// messages, instructions of the processor) gets the same values from every context.
unsafe impl Send for Context {}

impl Context {
    /// With a model that is built into the library. Frames whose number is a multiple of `each`
    /// have scores; of the others motion alone is measured.
    ///
    /// # Errors
    /// [`VmafError::Model`], [`VmafError::Failed`].
    pub fn new(functions: &'static Functions, model: &str, each: u32) -> Result<Self, VmafError> {
        let unknown = || VmafError::Model {
            model: model.into(),
            version: functions.version.clone(),
        };
        let name = CString::new(model).map_err(|_| unknown())?;
        // On the calling thread; silent, since scores are asked for before they are known, and the
        // library would complain of each.
        let configuration = Configuration {
            log_level: 0,
            threads: 0,
            subsample: each,
            cpu_mask: 0,
            gpu_mask: 0,
        };
        let mut raw = null_mut();
        // SAFETY: `raw` is writable; the structure goes over memory, where version 2 reads the
        // front of it.
        check("vmaf_init", unsafe {
            (functions.init)(&mut raw, configuration)
        })?;
        let raw = NonNull::new(raw).ok_or(VmafError::Failed("vmaf_init", 0))?;
        let handle = Handle { functions, raw };
        let mut configuration = ModelConfiguration {
            name: std::ptr::null(),
            flags: 0,
        };
        let mut raw = null_mut();
        // SAFETY: all three are valid for the call, and the library copies what it keeps.
        let code = unsafe { (functions.model_load)(&mut raw, &mut configuration, name.as_ptr()) };
        let raw = NonNull::new(raw)
            .filter(|_| code == 0)
            .ok_or_else(unknown)?;
        let model = Model { functions, raw };
        // Also where it is given up, the context goes first.
        let context = Self {
            handle,
            model,
            frames: 0,
        };
        let (raw, model) = (context.handle.raw.as_ptr(), context.model.raw.as_ptr());
        // SAFETY: both are open; the model is destroyed after the context.
        let code = unsafe { (functions.use_features)(raw, model) };
        check("vmaf_use_features_from_model", code)?;
        Ok(context)
    }

    /// The next frame, of the format of those before.
    ///
    /// # Errors
    /// [`VmafError::Failed`].
    pub fn add(
        &mut self,
        format: Format,
        reference: &[PlaneView<'_>; 3],
        distorted: &[PlaneView<'_>; 3],
    ) -> Result<(), VmafError> {
        let functions = self.handle.functions;
        let mut a = Picture::new(functions, format, reference)?;
        let mut b = Picture::new(functions, format, distorted)?;
        // SAFETY: the context is open, and both pictures are the library's.
        let code = unsafe {
            let context = self.handle.raw.as_ptr();
            (functions.read_pictures)(context, &mut a.raw, &mut b.raw, self.frames)
        };
        check("vmaf_read_pictures", code)?;
        // They are the context's now. Where it refuses them, they are not.
        std::mem::forget((a, b));
        self.frames += 1;
        Ok(())
    }

    /// There is no frame more: all scores become known.
    ///
    /// # Errors
    /// [`VmafError::Failed`].
    pub fn flush(&mut self) -> Result<(), VmafError> {
        // SAFETY: the context is open; no pictures mean the end.
        let code = unsafe {
            let context = self.handle.raw.as_ptr();
            (self.handle.functions.read_pictures)(context, null_mut(), null_mut(), 0)
        };
        check("vmaf_read_pictures", code)
    }

    /// The score of a frame, counted from 0.
    ///
    /// # Errors
    /// [`VmafError::Failed`], where it is not known yet.
    pub fn score(&mut self, frame: u32) -> Result<f64, VmafError> {
        let mut score = 0.0;
        // SAFETY: context and model are open, and `score` is writable.
        let code = unsafe {
            let context = self.handle.raw.as_ptr();
            (self.handle.functions.score)(context, self.model.raw.as_ptr(), &mut score, frame)
        };
        check("vmaf_score_at_index", code)?;
        Ok(score)
    }
}

/// The library returns negative numbers of the system's errors.
fn check(what: &'static str, code: c_int) -> Result<(), VmafError> {
    match code {
        0 => Ok(()),
        code => Err(VmafError::Failed(what, code)),
    }
}
