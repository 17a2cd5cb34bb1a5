// H_alpha and H_beta as dense matrices for the products of same spin (docs/gpu.md): making them, and adding triangles.

// dense[row, column[k] - first_column] = value[k] for the elements of a sparse row that lie in a range of columns.
// Thread block: one row of a matrix (n_rows, n_columns), which is zero before.
extern "C" __global__ void __launch_bounds__(256) scatter_rows(
    double* __restrict__ dense, const Index* __restrict__ indptr, const int* __restrict__ column,
    const double* __restrict__ value, const Index first_column, const Index n_columns) {
    double* out = dense + (Index)blockIdx.x * n_columns;
    const Index end = indptr[blockIdx.x + 1];
    for (Index k = indptr[blockIdx.x] + threadIdx.x; k < end; k += blockDim.x) {
        const Index at = column[k] - first_column;
        if (at >= 0 && at < n_columns) out[at] = value[k];
    }
}

// sigma[I, J] += product[I - first_row, J] for the wanted columns of every row. Thread block: one row of the product.
extern "C" __global__ void __launch_bounds__(256) add_wanted(
    const double* __restrict__ product, double* __restrict__ sigma, const Index* __restrict__ bra_offset,
    const Index* __restrict__ bra_stop, const Index first_row, const Index width) {
    const Index row = first_row + blockIdx.x;
    const double* source = product + (Index)blockIdx.x * width;
    double* out = sigma + bra_offset[row];
    for (Index j = threadIdx.x; j < bra_stop[row]; j += blockDim.x) out[j] += source[j];
}
