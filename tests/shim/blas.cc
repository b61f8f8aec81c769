/* cuBLAS and cuSOLVER on OpenBLAS and LAPACK, queued on the handle's stream. */
#include "tests/shim/cublas_v2.h"
#include "tests/shim/cuda_bf16.h"
#include "tests/shim/cuda_fp16.h"
#include "tests/shim/cusolverDn.h"
#include "tests/shim/memory.h"
#include "tests/shim/runtime.h"
#include "tests/shim/shim.h"

#include <cblas.h>
#include <f77blas.h>
#include <vector>

struct cublasContext {
    cudaStream_t stream = nullptr;
    cublasPointerMode_t pointers = CUBLAS_POINTER_MODE_HOST;
};
struct cusolverDnContext {
    cudaStream_t stream = nullptr;
};

namespace {

struct operand {
    const void *data;
    cudaDataType type;
    long long rows, cols, ld; /* column-major, as stored */
};

size_t bytes_of(cudaDataType type) {
    switch (type) {
    case CUDA_R_32F:
        return 4;
    case CUDA_R_16F:
    case CUDA_R_16BF:
        return 2;
    default:
        shim::fail("cuBLAS: element type %d", static_cast<int>(type));
    }
}

float read(const void *data, cudaDataType type, long long i) {
    switch (type) {
    case CUDA_R_16F:
        return float(static_cast<const __half *>(data)[i]);
    case CUDA_R_16BF:
        return float(static_cast<const __nv_bfloat16 *>(data)[i]);
    default:
        return static_cast<const float *>(data)[i];
    }
}
void write(void *data, cudaDataType type, long long i, float v) {
    switch (type) {
    case CUDA_R_16F:
        static_cast<__half *>(data)[i] = __half(v);
        break;
    case CUDA_R_16BF:
        static_cast<__nv_bfloat16 *>(data)[i] = __nv_bfloat16(v);
        break;
    default:
        static_cast<float *>(data)[i] = v;
    }
}

/* Packed columns in float32. */
std::vector<float> widen(const operand &o) {
    std::vector<float> w(static_cast<size_t>(o.rows * o.cols));
    for (long long j = 0; j < o.cols; j++)
        for (long long i = 0; i < o.rows; i++)
            w[static_cast<size_t>(j * o.rows + i)] = read(o.data, o.type, j * o.ld + i);
    return w;
}

void check_device(const operand &o, const char *what) {
    if (o.rows < 1 || o.cols < 1) return;
    size_t bytes = static_cast<size_t>((o.cols - 1) * o.ld + o.rows) * bytes_of(o.type);
    if (shim::arena_holds(o.data)) shim::arena_check(o.data, bytes, what);
}

const void *at(const void *data, cudaDataType type, long long offset) {
    return static_cast<const char *>(data) + offset * static_cast<long long>(bytes_of(type));
}

CBLAS_TRANSPOSE trans(cublasOperation_t op) {
    return op == CUBLAS_OP_N ? CblasNoTrans : CblasTrans;
}

} // namespace

const char *cublasGetStatusString(cublasStatus_t s) {
    return s == CUBLAS_STATUS_SUCCESS ? "success" : "failure";
}
cublasStatus_t cublasCreate(cublasHandle_t *out) {
    *out = new cublasContext;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t, void *workspace, size_t bytes) {
    if (bytes) shim::arena_check(workspace, bytes, "cublasSetWorkspace");
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) {
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode) {
    handle->pointers = mode;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetAtomicsMode(cublasHandle_t, cublasAtomicsMode_t) {
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t op_a,
                                          cublasOperation_t op_b, int m, int n, int k, const void *alpha_p,
                                          const void *a, cudaDataType a_type, int lda, long long stride_a,
                                          const void *b, cudaDataType b_type, int ldb, long long stride_b,
                                          const void *beta_p, void *c, cudaDataType c_type, int ldc,
                                          long long stride_c, int batch, cublasComputeType_t compute,
                                          cublasGemmAlgo_t) {
    bool reduced = compute == CUBLAS_COMPUTE_16F; /* its alpha and beta are float16 */
    long long a_rows = op_a == CUBLAS_OP_N ? m : k, b_rows = op_b == CUBLAS_OP_N ? k : n;
    if (m < 0 || n < 0 || k < 0 || lda < a_rows || ldb < b_rows || ldc < m || lda < 1 || ldb < 1 || ldc < 1 ||
        a_type != b_type || reduced)
        return CUBLAS_STATUS_INVALID_VALUE;
    const bool on_device = handle->pointers == CUBLAS_POINTER_MODE_DEVICE;
    if (on_device != shim::arena_holds(alpha_p) || on_device != shim::arena_holds(beta_p))
        shim::fail("cuBLAS: scalars on the %s, pointer mode the other", on_device ? "host" : "device");
    const float alpha_host = on_device ? 0.0f : *static_cast<const float *>(alpha_p),
                beta_host = on_device ? 0.0f : *static_cast<const float *>(beta_p);
    shim::enqueue(handle->stream, [=] {
        const float alpha = on_device ? *static_cast<const float *>(alpha_p) : alpha_host,
                    beta = on_device ? *static_cast<const float *>(beta_p) : beta_host;
        for (long long i = 0; i < batch; i++) {
            operand oa = {at(a, a_type, i * stride_a), a_type, a_rows, op_a == CUBLAS_OP_N ? k : m, lda};
            operand ob = {at(b, b_type, i * stride_b), b_type, b_rows, op_b == CUBLAS_OP_N ? n : k, ldb};
            operand oc = {at(c, c_type, i * stride_c), c_type, m, n, ldc};
            check_device(oa, "gemm A"), check_device(ob, "gemm B"), check_device(oc, "gemm C");
            std::vector<float> wa = widen(oa), wb = widen(ob);
            std::vector<float> wc = beta == 0.0f
                                        ? std::vector<float>(static_cast<size_t>(m) * static_cast<size_t>(n))
                                        : widen(oc);
            if (m && n)
                cblas_sgemm(CblasColMajor, trans(op_a), trans(op_b), m, n, k, alpha, wa.data(),
                            static_cast<int>(a_rows ? a_rows : 1), wb.data(),
                            static_cast<int>(b_rows ? b_rows : 1), beta, wc.data(), m);
            for (int col = 0; col < n; col++)
                for (int row = 0; row < m; row++)
                    write(const_cast<void *>(oc.data), c_type, static_cast<long long>(col) * ldc + row,
                          wc[static_cast<size_t>(col) * static_cast<size_t>(m) + static_cast<size_t>(row)]);
        }
    });
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m,
                            int n, int k, const void *alpha, const void *a, cudaDataType a_type, int lda,
                            const void *b, cudaDataType b_type, int ldb, const void *beta, void *c,
                            cudaDataType c_type, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t algorithm) {
    return cublasGemmStridedBatchedEx(handle, op_a, op_b, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb,
                                      0, beta, c, c_type, ldc, 0, 1, compute, algorithm);
}
cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m,
                           int n, int k, const float *alpha, const float *a, int lda, const float *b, int ldb,
                           const float *beta, float *c, int ldc) {
    return cublasGemmEx(handle, op_a, op_b, m, n, k, alpha, a, CUDA_R_32F, lda, b, CUDA_R_32F, ldb, beta, c,
                        CUDA_R_32F, ldc, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
}

cublasStatus_t cublasSsyrk(cublasHandle_t handle, cublasFillMode_t uplo, cublasOperation_t op, int n, int k,
                           const float *alpha_p, const float *a, int lda, const float *beta_p, float *c,
                           int ldc) {
    float alpha = *alpha_p, beta = *beta_p;
    shim::enqueue(handle->stream, [=] {
        cblas_ssyrk(CblasColMajor, uplo == CUBLAS_FILL_MODE_LOWER ? CblasLower : CblasUpper, trans(op), n, k,
                    alpha, a, lda, beta, c, ldc);
    });
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasStrsm(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t uplo,
                           cublasOperation_t op, cublasDiagType_t diag, int m, int n, const float *alpha_p,
                           const float *a, int lda, float *b, int ldb) {
    float alpha = *alpha_p;
    shim::enqueue(handle->stream, [=] {
        cblas_strsm(CblasColMajor, side == CUBLAS_SIDE_LEFT ? CblasLeft : CblasRight,
                    uplo == CUBLAS_FILL_MODE_LOWER ? CblasLower : CblasUpper, trans(op),
                    diag == CUBLAS_DIAG_UNIT ? CblasUnit : CblasNonUnit, m, n, alpha, a, lda, b, ldb);
    });
    return CUBLAS_STATUS_SUCCESS;
}

static char letter(cublasFillMode_t uplo) {
    return uplo == CUBLAS_FILL_MODE_LOWER ? 'L' : 'U';
}

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t *out) {
    *out = new cusolverDnContext;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) {
    delete handle;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUSOLVER_STATUS_SUCCESS;
}

/* The work space is only touched, so that one too small shows. */
static void touch(void *work, size_t bytes) {
    if (bytes) shim::arena_check(work, bytes, "cuSOLVER work space"), memset(work, 0xff, bytes);
}

struct cusolverDnParams {};
cusolverStatus_t cusolverDnCreateParams(cusolverDnParams_t *out) {
    *out = new cusolverDnParams;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroyParams(cusolverDnParams_t params) {
    delete params;
    return CUSOLVER_STATUS_SUCCESS;
}
/* What the next factorization ends with: a status, or 0. */
static int solver_fails = 0;
extern "C" void qb_shim_fail_solver(int status) {
    solver_fails = status;
}
cusolverStatus_t cusolverDnXpotrf_bufferSize(cusolverDnHandle_t, cusolverDnParams_t, cublasFillMode_t,
                                             int64_t n, cudaDataType, const void *, int64_t, cudaDataType,
                                             size_t *device_bytes, size_t *host_bytes) {
    *device_bytes = static_cast<size_t>(n) * 256, *host_bytes = 24;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnXpotrf(cusolverDnHandle_t handle, cusolverDnParams_t params, cublasFillMode_t uplo,
                                  int64_t n, cudaDataType type, void *a, int64_t lda, cudaDataType compute,
                                  void *device_work, size_t device_bytes, void *host_work, size_t host_bytes,
                                  int *info) {
    if (solver_fails) {
        cusolverStatus_t status = static_cast<cusolverStatus_t>(solver_fails);
        solver_fails = 0;
        return status;
    }
    if (!params || type != CUDA_R_32F || compute != CUDA_R_32F || lda < n || host_bytes < 24 || !host_work ||
        device_bytes < static_cast<size_t>(n) * 256)
        return CUSOLVER_STATUS_INVALID_VALUE;
    memset(host_work, 0xff, host_bytes);
    shim::enqueue(handle->stream, [=] {
        touch(device_work, device_bytes);
        char triangle = letter(uplo);
        blasint order = static_cast<blasint>(n), stride = static_cast<blasint>(lda);
        spotrf_(&triangle, &order, static_cast<float *>(a), &stride, info);
    });
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnXtrtri_bufferSize(cusolverDnHandle_t, cublasFillMode_t, cublasDiagType_t,
                                             int64_t n, cudaDataType, void *, int64_t, size_t *device_bytes,
                                             size_t *host_bytes) {
    *device_bytes = static_cast<size_t>(n) * 256, *host_bytes = 64;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnXtrtri(cusolverDnHandle_t handle, cublasFillMode_t uplo, cublasDiagType_t diag,
                                  int64_t n, cudaDataType type, void *a, int64_t lda, void *device_work,
                                  size_t device_bytes, void *host_work, size_t host_bytes, int *info) {
    if (type != CUDA_R_32F || device_bytes < static_cast<size_t>(n) * 256 || host_bytes < 64 || !host_work)
        return CUSOLVER_STATUS_INVALID_VALUE;
    memset(host_work, 0xff, host_bytes);
    shim::enqueue(handle->stream, [=] {
        touch(device_work, device_bytes);
        char triangle = letter(uplo), unit = diag == CUBLAS_DIAG_UNIT ? 'U' : 'N';
        blasint order = static_cast<blasint>(n), stride = static_cast<blasint>(lda);
        strtri_(&triangle, &unit, &order, static_cast<float *>(a), &stride, info);
    });
    return CUSOLVER_STATUS_SUCCESS;
}
