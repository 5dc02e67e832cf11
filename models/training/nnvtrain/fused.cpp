// Fused operators of training on CPUs (fused.py): what PyTorch does in dozens of passes over
// memory, in one or two.
#include <torch/extension.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

inline float from_bf16(uint16_t v) {
    uint32_t bits = uint32_t(v) << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}

inline uint16_t to_bf16(float f) {
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float load(const float* p, int64_t i) { return p[i]; }
inline float load(const uint16_t* p, int64_t i) { return from_bf16(p[i]); }
inline void store(float* p, int64_t i, float v) { p[i] = v; }
inline void store(uint16_t* p, int64_t i, float v) { p[i] = to_bf16(v); }

template <typename T>
void clamp_round_loop(const T* __restrict x, T* __restrict y, int64_t n, float lo, float hi,
                      float scale) {
    if (scale != 0) {
        const float inverse = 1 / scale;
        for (int64_t i = 0; i < n; i++) {
            float v = load(x, i);
            v = v < lo ? lo : v > hi ? hi : v;
            store(y, i, __builtin_rintf(v * scale) * inverse);
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            float v = load(x, i);
            store(y, i, v < lo ? lo : v > hi ? hi : v);
        }
    }
}

template <typename T>
void clamp_back_loop(const T* __restrict g, const T* __restrict x, T* __restrict y, int64_t n,
                     float lo, float hi, bool leak) {
    if (leak) {
        for (int64_t i = 0; i < n; i++) {
            float v = load(x, i), d = load(g, i);
            bool stop = (v <= lo && !(d < 0)) || (v >= hi && !(d > 0));
            store(y, i, stop ? 0.0f : d);
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            float v = load(x, i), d = load(g, i);
            store(y, i, (v > lo && v < hi) ? d : 0.0f);
        }
    }
}

bool same_layout(const at::Tensor& a, const at::Tensor& b) { return a.strides() == b.strides(); }

}  // namespace

at::Tensor clamp_round(const at::Tensor& x, double lo, double hi, double scale) {
    TORCH_CHECK(x.is_non_overlapping_and_dense(), "dense tensor wanted");
    auto y = at::empty_like(x);
    if (x.scalar_type() == at::kBFloat16)
        clamp_round_loop((const uint16_t*)x.data_ptr(), (uint16_t*)y.data_ptr(), x.numel(), lo, hi,
                         scale);
    else
        clamp_round_loop(x.data_ptr<float>(), y.data_ptr<float>(), x.numel(), lo, hi, scale);
    return y;
}

at::Tensor clamp_back(const at::Tensor& grad, const at::Tensor& x, double lo, double hi,
                      bool leak) {
    auto g = grad;
    auto y = at::empty_like(x);
    if (g.scalar_type() != x.scalar_type()) g = g.to(x.scalar_type());
    if (!same_layout(g, x)) {
        auto copy = at::empty_like(x);
        copy.copy_(g);
        g = copy;
    }
    if (x.scalar_type() == at::kBFloat16)
        clamp_back_loop((const uint16_t*)g.data_ptr(), (const uint16_t*)x.data_ptr(),
                        (uint16_t*)y.data_ptr(), x.numel(), lo, hi, leak);
    else
        clamp_back_loop(g.data_ptr<float>(), x.data_ptr<float>(), y.data_ptr<float>(), x.numel(),
                        lo, hi, leak);
    return y;
}

// All tensors float32, channels-last contiguous [B,C,H,W]. Returns bits [B] and the derivatives of
// each symbol's bits by value and by index, and by gain [B] (sums of index derivative times ratio).
// See model.latent_bits for the definition.
std::vector<at::Tensor> latent_bits(const at::Tensor& sym, const at::Tensor& value,
                                    const at::Tensor& index, const at::Tensor& noise, double gain_,
                                    double scale_min, double per_octave, double top_) {
    const int64_t batch = sym.size(0), c = sym.size(1), h = sym.size(2), w = sym.size(3);
    auto bits = at::zeros({batch}, sym.options().dtype(at::kDouble));
    auto by_gain = at::zeros({batch}, sym.options().dtype(at::kDouble));
    auto d_value = at::empty_like(value), d_index = at::empty_like(index);
    const float *ps = sym.data_ptr<float>(), *pv = value.data_ptr<float>(),
                *pi = index.data_ptr<float>(), *pu = noise.data_ptr<float>();
    float *dv = d_value.data_ptr<float>(), *di = d_index.data_ptr<float>();
    const float gain = gain_, top = top_, octave = 1 / per_octave, smin = scale_min;
    const float ln2 = 0.69314718f, log2e = 1.44269504f;
    std::vector<float> expect(w * h * c);
    std::vector<float> seen_row(c), promised_row(c), ratio(c);
    for (int64_t b = 0; b < batch; b++) {
        const int64_t at = b * h * w * c;
        for (int64_t i = 0; i < h * w * c; i++)
            expect[i] = 0.7f * smin * expf(ln2 * octave * pi[at + i]);
        double total = 0, total_gain = 0;
        for (int64_t y = 0; y < h; y++)
            for (int64_t x = 0; x < w; x++) {
                const int64_t place = (y * w + x) * c;
                const float *s = ps + at + place, *e = expect.data() + place;
                float *seen = seen_row.data(), *promised = promised_row.data(), *r = ratio.data();
                for (int64_t k = 0; k < c; k++) seen[k] = promised[k] = 0.5f;
                if (x)
                    for (int64_t k = 0; k < c; k++) {
                        seen[k] += fabsf(s[k - c]);
                        promised[k] += e[k - c];
                    }
                if (y)
                    for (int64_t k = 0; k < c; k++) {
                        seen[k] += fabsf(s[k - w * c]);
                        promised[k] += e[k - w * c];
                    }
                for (int64_t back : {1, 2, 3, 4, 8, 32})
                    for (int64_t k = back; k < c; k++) {
                        seen[k] += fabsf(s[k - back]);
                        promised[k] += e[k - back];
                    }
                for (int64_t k = 0; k < c; k++) {
                    float l = log2e * logf(seen[k] / promised[k]);
                    r[k] = l < -3 ? -3 : l > 3 ? 3 : l;
                }
                const float *v = pv + at + place, *ix = pi + at + place, *u = pu + at + place;
                float *ov = dv + at + place, *oi = di + at + place;
                float sum = 0, sum_gain = 0;
                for (int64_t k = 0; k < c; k++) {
                    float raw = ix[k] + gain * r[k];
                    float sharp = raw < 0 ? 0 : raw > top ? top : raw;
                    float inv = 1.41421356f / (smin * expf(ln2 * octave * sharp));
                    float whole = expf(-inv);
                    // The true symbol, derivative by the scale.
                    float a = fabsf(s[k]);
                    float e1 = expf((a < 0.5f ? a - 0.5f : 0.0f) * inv),
                          e2 = expf(-(a + 0.5f) * inv);
                    float inside = 1 - 0.5f * (e1 + e2) + 1e-12f;
                    float mass = 0.5f * (1 - whole) + 1e-12f;
                    bool zero = a < 0.5f;
                    float lp = logf(zero ? inside : mass) - (zero ? 0.0f : (a - 0.5f) * inv);
                    float by_inv = zero ? -0.5f * ((a - 0.5f) * e1 - (a + 0.5f) * e2) / inside
                                        : 0.5f * whole / mass - (a - 0.5f);
                    sum -= lp;
                    float d =
                        by_inv * inv *
                        octave;  // bits by index: -log2(e) * dlp/dinv * (-inv * ln2 / per_octave)
                    bool stop = (raw <= 0 && !(d < 0)) || (raw >= top && !(d > 0));
                    d = stop ? 0 : d;
                    oi[k] = d;
                    sum_gain += d * r[k];
                    // The blurred value, derivative by the value.
                    float blurred = v[k] + u[k] - 0.5f;
                    float m = fabsf(blurred);
                    float f1 = expf((m < 0.5f ? m - 0.5f : 0.0f) * inv),
                          f2 = expf(-(m + 0.5f) * inv);
                    float soft = 1 - 0.5f * (f1 + f2) + 1e-12f;
                    float by_m = m < 0.5f ? 0.5f * inv * (f1 - f2) / soft * log2e : inv * log2e;
                    ov[k] = blurred < 0 ? -by_m : by_m;
                }
                total += sum * log2e;
                total_gain += sum_gain;
            }
        bits.data_ptr<double>()[b] = total;
        by_gain.data_ptr<double>()[b] = total_gain;
    }
    return {bits.to(at::kFloat), d_value, d_index, by_gain.to(at::kFloat)};
}

namespace {

// A cell's prediction reads a window of `size` = block + taps - 1 samples a side, edges repeated.
struct Window {
    int64_t block, taps, size, h, w;
    std::vector<int64_t> rows, cols;
    const float *fx, *fy;

    Window(int64_t block, int64_t taps, int64_t h, int64_t w)
        : block(block), taps(taps), size(block + taps - 1), h(h), w(w), rows(size), cols(size) {}

    // `place`: picture, top and left of the cell; `mv`: x and y with `shift` fractional bits.
    void at(const int64_t* place, const int64_t* mv, const float* table, int64_t shift) {
        const int64_t mask = (int64_t(1) << shift) - 1, before = taps / 2 - 1;
        const int64_t top = place[1] + (mv[1] >> shift) - before;
        const int64_t left = place[2] + (mv[0] >> shift) - before;
        for (int64_t i = 0; i < size; i++) {
            rows[i] = std::clamp<int64_t>(top + i, 0, h - 1) * w;
            cols[i] = std::clamp<int64_t>(left + i, 0, w - 1);
        }
        fx = table + (mv[0] & mask) * taps;
        fy = table + (mv[1] & mask) * taps;
    }
};

template <int B, int T>
void cells_loop(const float* ref, float* out, const int64_t* place, const int64_t* mv,
                const float* taps, int64_t k, int64_t c, int64_t h, int64_t w, int64_t shift) {
    constexpr int S = B + T - 1;
    Window win(B, T, h, w);
    float given[S][S], across[S][B];
    for (int64_t i = 0; i < k; i++, place += 3, mv += 2) {
        win.at(place, mv, taps, shift);
        for (int64_t channel = 0; channel < c; channel++, out += B * B) {
            const float* plane = ref + (place[0] * c + channel) * h * w;
            for (int y = 0; y < S; y++)
                for (int x = 0; x < S; x++) given[y][x] = plane[win.rows[y] + win.cols[x]];
            for (int y = 0; y < S; y++)
                for (int x = 0; x < B; x++) {
                    float sum = 0;
                    for (int t = 0; t < T; t++) sum += win.fx[t] * given[y][x + t];
                    across[y][x] = sum;
                }
            for (int y = 0; y < B; y++)
                for (int x = 0; x < B; x++) {
                    float sum = 0;
                    for (int t = 0; t < T; t++) sum += win.fy[t] * across[y + t][x];
                    out[y * B + x] = sum;
                }
        }
    }
}

template <int B, int T>
void cells_back_loop(const float* grad, float* to, const int64_t* place, const int64_t* mv,
                     const float* taps, int64_t k, int64_t c, int64_t h, int64_t w, int64_t shift) {
    constexpr int S = B + T - 1;
    Window win(B, T, h, w);
    float given[S][S], across[S][B];
    for (int64_t i = 0; i < k; i++, place += 3, mv += 2) {
        win.at(place, mv, taps, shift);
        for (int64_t channel = 0; channel < c; channel++, grad += B * B) {
            float* plane = to + (place[0] * c + channel) * h * w;
            std::memset(given, 0, sizeof given);
            std::memset(across, 0, sizeof across);
            for (int y = 0; y < B; y++)
                for (int t = 0; t < T; t++)
                    for (int x = 0; x < B; x++) across[y + t][x] += win.fy[t] * grad[y * B + x];
            for (int y = 0; y < S; y++)
                for (int t = 0; t < T; t++)
                    for (int x = 0; x < B; x++) given[y][x + t] += win.fx[t] * across[y][x];
            for (int y = 0; y < S; y++)
                for (int x = 0; x < S; x++) plane[win.rows[y] + win.cols[x]] += given[y][x];
        }
    }
}

}  // namespace

// Motion-compensated cells [K,C,block,block] of ref [B,C,H,W], see motion._cells. `place` [K,3],
// `mv` [K,2]; `taps` [phases,8] with blocks of 8 (luma) or [phases,4] with blocks of 4 (chroma).
at::Tensor cells(const at::Tensor& ref, const at::Tensor& place, const at::Tensor& mv,
                 const at::Tensor& taps, int64_t shift) {
    const int64_t k = place.size(0), c = ref.size(1), h = ref.size(2), w = ref.size(3);
    const int64_t block = taps.size(1);
    TORCH_CHECK(block == 8 || block == 4, "eight taps for luma or four for chroma");
    auto out = at::empty({k, c, block, block}, ref.options());
    (block == 8 ? cells_loop<8, 8> : cells_loop<4, 4>)(ref.data_ptr<float>(), out.data_ptr<float>(),
                                                       place.data_ptr<int64_t>(),
                                                       mv.data_ptr<int64_t>(),
                                                       taps.data_ptr<float>(), k, c, h, w, shift);
    return out;
}

at::Tensor cells_back(const at::Tensor& grad, std::vector<int64_t> shape, const at::Tensor& place,
                      const at::Tensor& mv, const at::Tensor& taps, int64_t shift) {
    const int64_t k = place.size(0), block = taps.size(1);
    auto to = at::zeros(shape, grad.options());
    (block == 8 ? cells_back_loop<8, 8>
                : cells_back_loop<4, 4>)(grad.data_ptr<float>(), to.data_ptr<float>(),
                                         place.data_ptr<int64_t>(), mv.data_ptr<int64_t>(),
                                         taps.data_ptr<float>(), k, shape[1], shape[2], shape[3],
                                         shift);
    return to;
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
    m.def("cells", &cells);
    m.def("cells_back", &cells_back);
    m.def("clamp_round", &clamp_round);
    m.def("clamp_back", &clamp_back);
    m.def("latent_bits", &latent_bits);
}
