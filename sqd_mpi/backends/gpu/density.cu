// The sums of density matrices (definition: backends/slow/density_kernels.py; how they are laid out: docs/gpu.md).
//
// Every number has one owner. A sum that is cut into parts is written part by part and added in a second stage, in an
// order that depends on sizes alone.

#define CHUNK 8

// partial[part, m] = part of bra[row, :] . ket[column[m], :] for the entries m of a sparse row. Thread block: up to CHUNK
// entries of one row, which read the bra row once, and one range of columns.
extern "C" __global__ void __launch_bounds__(256) row_products(
    const double* __restrict__ bra, const double* __restrict__ ket, double* __restrict__ partial,
    const Index* __restrict__ bra_offset, const Index* __restrict__ ket_offset, const int* __restrict__ chunk_row,
    const Index* __restrict__ chunk_first, const Index* __restrict__ indptr, const int* __restrict__ column,
    const Index n_chunks, const Index length, const Index n_entries, const Index n_parts) {
    SHARED_DOUBLES(shared);  // CHUNK sums of every thread
    const Index part = blockIdx.x / n_chunks, chunk = blockIdx.x % n_chunks;
    const Index row = chunk_row[chunk], first = chunk_first[chunk];
    const int n = indptr[row + 1] - first < CHUNK ? (int)(indptr[row + 1] - first) : CHUNK;
    const Index begin = length * part / n_parts, end = length * (part + 1) / n_parts;
    const double* left = bra + bra_offset[row];
    const double* right[CHUNK];
    double total[CHUNK];
#pragma unroll
    for (int x = 0; x < CHUNK; ++x) {  // entries beyond the last are not read
        right[x] = ket + ket_offset[column[first + (x < n ? x : 0)]];
        total[x] = 0.0;
    }
    for (Index j = begin + threadIdx.x; j < end; j += blockDim.x) {
        const double value = left[j];
#pragma unroll
        for (int x = 0; x < CHUNK; ++x)
            if (x < n) total[x] += value * right[x][j];
    }
#pragma unroll
    for (int x = 0; x < CHUNK; ++x) shared[x * blockDim.x + threadIdx.x] = total[x];
    for (unsigned int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            for (int x = 0; x < n; ++x)
                shared[x * blockDim.x + threadIdx.x] += shared[x * blockDim.x + threadIdx.x + half];
    }
    __syncthreads();
    if ((int)threadIdx.x < n) partial[part * n_entries + first + threadIdx.x] = shared[threadIdx.x * blockDim.x];
}

// partial[part, m] = part of bra[:, bra_column[m]] . ket[:, column[m]]. One thread for every entry and range of rows.
extern "C" __global__ void __launch_bounds__(256) column_products(
    const double* __restrict__ bra, const double* __restrict__ ket, double* __restrict__ partial,
    const Index* __restrict__ bra_offset, const Index* __restrict__ ket_offset, const int* __restrict__ bra_column,
    const int* __restrict__ column, const Index n_rows, const Index n_entries, const Index n_parts) {
    const Index n_stretches = (n_entries + blockDim.x - 1) / blockDim.x;
    const Index part = blockIdx.x / n_stretches;
    const Index entry = blockIdx.x % n_stretches * blockDim.x + threadIdx.x;
    if (entry >= n_entries) return;
    const Index begin = n_rows * part / n_parts, end = n_rows * (part + 1) / n_parts;
    const Index left = bra_column[entry], right = column[entry];
    double total = 0.0;
    for (Index i = begin; i < end; ++i) total += bra[bra_offset[i] + left] * ket[ket_offset[i] + right];
    partial[part * n_entries + entry] = total;
}

// out[m] = sum over parts of partial[part, m].
extern "C" __global__ void __launch_bounds__(256) add_products(
    const double* __restrict__ partial, double* __restrict__ out, const Index n_entries, const Index n_parts) {
    const Index entry = (Index)blockIdx.x * blockDim.x + threadIdx.x;
    if (entry >= n_entries) return;
    double total = 0.0;
    for (Index part = 0; part < n_parts; ++part) total += partial[part * n_entries + entry];
    out[entry] = total;
}

// Opposite spin by matrix products, for a stack of bra rows I: X[J', u] = sum over J with (J, J', rs_u, eta) of
// eta C[I, J], G[k, J'] = eps_k C'[I'_k, J'], P = G X, then Gamma[pq, rs_u] += sum over k with pq_k = pq of P[k, u].
//
// X (stack, width, n_used) for the ket columns first .. first + width - 1, filled with zeros before: one thread for every
// entry, and no place has two, as <J| r+ s |J'> names J.
extern "C" __global__ void __launch_bounds__(256) opposite_spread(
    const double* __restrict__ bra, double* __restrict__ spread, const int* __restrict__ rows,
    const Index* __restrict__ bra_offset, const int* __restrict__ entry_bra, const int* __restrict__ entry_ket,
    const int* __restrict__ entry_place, const Index first_entry, const Index n_entries, const Index first,
    const Index width, const Index n_used) {
    const Index n_stretches = (n_entries + blockDim.x - 1) / blockDim.x;
    const Index number = blockIdx.x / n_stretches;
    const Index at = blockIdx.x % n_stretches * blockDim.x + threadIdx.x;
    if (at >= n_entries) return;
    const Index entry = first_entry + at;
    const int place = entry_place[entry];
    const double value = bra[bra_offset[rows[number]] + entry_bra[entry]];
    spread[(number * width + entry_ket[entry] - first) * n_used + (place >> 1)] = (place & 1) ? -value : value;
}

// G (stack, depth, width), zeros behind the last pair of a row. One thread block for each row of G.
extern "C" __global__ void __launch_bounds__(256) opposite_rows(
    const double* __restrict__ ket, double* __restrict__ gathered, const Index* __restrict__ start,
    const int* __restrict__ pair_ket, const signed char* __restrict__ pair_sign, const Index* __restrict__ ket_offset,
    const Index depth, const Index first, const Index width) {
    const Index number = blockIdx.x / depth, pair = start[number] + blockIdx.x % depth;
    const bool there = pair < start[number + 1];
    const double* source = there ? ket + ket_offset[pair_ket[pair]] + first : nullptr;
    const double sign = there ? (double)pair_sign[pair] : 0.0;
    double* out = gathered + (Index)blockIdx.x * width;
    for (Index j = threadIdx.x; j < width; j += blockDim.x) out[j] = there ? sign * source[j] : 0.0;
}

// Gamma[target, column_u] += sum over the rows of P of one target. Thread block: a target and a stretch of u.
extern "C" __global__ void __launch_bounds__(256) opposite_collect(
    const double* __restrict__ product, double* __restrict__ out, const int* __restrict__ target,
    const Index* __restrict__ target_start, const int* __restrict__ slot, const int* __restrict__ out_column,
    const Index first_target, const Index n_columns, const Index n_used) {
    const Index n_stretches = (n_used + blockDim.x - 1) / blockDim.x;
    const Index which = first_target + blockIdx.x / n_stretches;
    const Index u = blockIdx.x % n_stretches * blockDim.x + threadIdx.x;
    if (u >= n_used) return;
    double total = 0.0;
    for (Index k = target_start[which]; k < target_start[which + 1]; ++k) total += product[slot[k] * n_used + u];
    out[(Index)target[which] * n_columns + out_column[u]] += total;
}
