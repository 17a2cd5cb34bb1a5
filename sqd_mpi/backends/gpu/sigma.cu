// The sums of sigma = H C (definition: backends/slow/kernels.py; how they are laid out: docs/gpu.md).
//
// A row is one alpha string; its beta columns lie next to each other in a flat vector. A thread block owns one row (or
// a few) and COLUMNS * blockDim.x of its columns: sums are made in registers and added to sigma once, so no two threads
// write to the same element and results do not depend on the order of blocks.
//
// Lists of beta columns are stored in slices of 32 columns ("sliced ELL"): entry m of the column at position p stands at
// slice_start[p / 32] + 32 m + p % 32, so that neighbouring threads read neighbouring entries. `order` is the column at
// every position: columns of equal length stand together, sorted inside windows of WINDOW, so that the threads of a warp
// end together. Ket columns are cut into tiles that fit into shared memory; every tile has its own slices. `table` holds
// numbers of every list, TABLE each.

#define COLUMNS 4
#define GROUP 4
#define WINDOW 256  // stretches of positions begin and end at multiples of it

// A list of beta singles is for bra columns of one label and orbital pairs of one label.
#define TABLE 9
#define FIRST_COUNT 0
#define FIRST_SLICE 1
#define N_COLUMNS 2
#define N_TILES 3
#define N_KET 4
#define FIRST_USED 5
#define N_USED 6
#define FIRST_OCCUPIED 7
#define FIRST_COLUMN 8

// Columns that a thread owns, by their positions; -1 where there is none or it is not wanted.
__device__ __forceinline__ void own_columns(const Index* list, const int* order, const Index first, const Index stop,
                                            int* columns) {
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
        const Index position = first + (Index)c * blockDim.x;
        columns[c] = position < list[N_COLUMNS] ? order[list[FIRST_COLUMN] + position] : -1;
        if (columns[c] >= stop) columns[c] = -1;
    }
}

// An entry of such a list: sign, direction and number of the orbital pair among those in use, ket column in its tile.
__device__ __forceinline__ Index column_of(const unsigned int entry) { return entry & 0xffffu; }
__device__ __forceinline__ unsigned int directed_of(const unsigned int entry) { return (entry >> 16) & 0x7fffu; }
__device__ __forceinline__ double sign_of(const unsigned int entry, const int turned) {
    const unsigned int direction = turned ? (entry >> 16) & 1u : 0u;
    return ((entry >> 31) ^ direction) ? -1.0 : 1.0;
}

__device__ __forceinline__ double weight_of(const int pair, const signed char sign, const int turned) {
    return (turned && (pair & 1)) ? -(double)sign : (double)sign;
}

// sigma[I, J] += sum over singles (I, I', pq, eps), (J, J', rs, eta) of eps eta (coupling[pq, rs] - swap (rs == qp))
// C[I', J'], and the beta diagonal: sum over r occupied in J of coupling[pq, rr] C[I', J]. With `turned`, eps and eta
// carry the directions of the pairs as well.
//
// One launch is for the pairs of one label d. Thread block: a bra row and a stretch of its columns. `batch` alpha singles
// at a time: their ket rows and (if `staged`) their rows of the coupling lie in shared memory, and one reading of a list
// entry serves them all.
extern "C" __global__ void __launch_bounds__(512) opposite_direct(
    const double* __restrict__ ket, double* __restrict__ sigma, const int* __restrict__ block_row,
    const int* __restrict__ block_column, const Index* __restrict__ bra_offset, const Index* __restrict__ bra_stop,
    const int* __restrict__ bra_label, const Index* __restrict__ ket_offset, const double* __restrict__ coupling,
    const Index n_pairs, const double swap, const int turned, const Index first_row, const Index n_labels,
    const Index sector, const Index d, const Index* __restrict__ single_start, const int* __restrict__ single_ket,
    const int* __restrict__ single_pair, const signed char* __restrict__ single_sign, const Index* __restrict__ table,
    const unsigned int* __restrict__ entries, const Index* __restrict__ slice_start, const int* __restrict__ counts,
    const int* __restrict__ order, const int* __restrict__ used, const int* __restrict__ occupied,
    const Index n_electrons, const Index tile_width, const Index batch, const Index staged) {
    SHARED_DOUBLES(shared);
    const Index row = block_row[blockIdx.x];
    const Index first_position = block_column[blockIdx.x] + threadIdx.x;
    const Index begin = single_start[(row - first_row) * n_labels + d];
    const Index end = single_start[(row - first_row) * n_labels + d + 1];
    const Index* list = table + ((bra_label[row] ^ sector) * n_labels + d) * TABLE;
    const Index n_columns = list[N_COLUMNS], n_ket = list[N_KET], n_used = list[N_USED];
    const Index n_slices = (n_columns + 31) / 32;
    const int* own_used = used + list[FIRST_USED];
    const int* own_occupied = list[FIRST_OCCUPIED] >= 0 ? occupied + list[FIRST_OCCUPIED] : nullptr;
    double* rows = shared + (staged ? batch * n_used : 0);
    int columns[COLUMNS];
    own_columns(list, order, first_position, bra_stop[row], columns);
    double sum[COLUMNS];
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) sum[c] = 0.0;
    for (Index tile = 0; tile < list[N_TILES]; ++tile) {
        const Index first_ket = tile * tile_width;
        const Index width = n_ket - first_ket < tile_width ? n_ket - first_ket : tile_width;
        for (Index first = begin; first < end; first += batch) {
            const Index n = end - first < batch ? end - first : batch;
            __syncthreads();  // all are through with the rows before
            for (Index b = 0; b < n; ++b) {
                const int pair = single_pair[first + b];
                if (staged) {
                    const double weight = weight_of(pair, single_sign[first + b], turned);
                    const double* from = coupling + (Index)(pair >> 1) * n_pairs;
                    for (Index u = threadIdx.x; u < n_used; u += blockDim.x)
                        shared[b * n_used + u] = weight * from[own_used[u]];
                }
                const double* source = ket + ket_offset[single_ket[first + b]] + first_ket;
                for (Index k = threadIdx.x; k < width; k += blockDim.x) rows[b * tile_width + k] = source[k];
            }
            __syncthreads();
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) {
                if (columns[c] < 0) continue;
                const Index position = first_position + (Index)c * blockDim.x;
                const int count = counts[list[FIRST_COUNT] + tile * n_columns + position];
                const unsigned int* own =
                    entries + slice_start[list[FIRST_SLICE] + tile * n_slices + position / 32] + position % 32;
                double total = 0.0;
                if (staged && swap == 0.0) {
                    for (int m = 0; m < count; ++m) {
                        const unsigned int entry = own[32 * (Index)m];
                        const Index u = directed_of(entry) >> 1, column = column_of(entry);
                        double value = 0.0;
                        for (Index b = 0; b < n; ++b)
                            value += shared[b * n_used + u] * rows[b * tile_width + column];
                        total += sign_of(entry, turned) * value;
                    }
                } else {
#pragma unroll 1
                    for (int m = 0; m < count; ++m) {
                        const unsigned int entry = own[32 * (Index)m];
                        const Index rs = own_used[directed_of(entry) >> 1], column = column_of(entry);
                        double value = 0.0;
#pragma unroll 1
                        for (Index b = 0; b < n; ++b) {
                            const int pair = single_pair[first + b];
                            const double crossed = 2 * rs + (directed_of(entry) & 1) == (pair ^ 1) ? swap : 0.0;
                            value += weight_of(pair, single_sign[first + b], turned) *
                                     (coupling[(Index)(pair >> 1) * n_pairs + rs] - crossed) *
                                     rows[b * tile_width + column];
                        }
                        total += sign_of(entry, turned) * value;
                    }
                }
                if (own_occupied != nullptr && columns[c] >= first_ket && columns[c] < first_ket + width) {
#pragma unroll 1
                    for (Index b = 0; b < n; ++b) {
                        const int pair = single_pair[first + b];
                        const double weight = weight_of(pair, single_sign[first + b], turned);
                        double diagonal = 0.0;
#pragma unroll 1
                        for (Index r = 0; r < n_electrons; ++r) {
                            const Index u = own_occupied[r * n_columns + position];
                            diagonal += staged ? shared[b * n_used + u]
                                               : weight * coupling[(Index)(pair >> 1) * n_pairs + own_used[u]];
                        }
                        total += diagonal * rows[b * tile_width + columns[c] - first_ket];
                    }
                }
                sum[c] += total;
            }
        }
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c)
        if (columns[c] >= 0) sigma[bra_offset[row] + columns[c]] += sum[c];
}

// The same sum by matrix products, for rows of one label and pairs of one label: T = W G for every row I of a batch, with
// W[w, k] = eps_k (coupling[pq_k, w] + ...) and G[k, :] = C[I'_k, :], then sigma[I, J] += sum eta T[rs, J'].
//
// factors: W (batch, n_weights, depth), one thread block for each row. A row of W belongs to an orbital pair in use, or
// (`directed`) to one direction of it; then swap and twist are part of the weight.
extern "C" __global__ void __launch_bounds__(256) opposite_weights(
    double* __restrict__ weights, const int* __restrict__ rows, const double* __restrict__ coupling,
    const double* __restrict__ twist, const Index n_pairs, const double swap, const int directed, const int has_twist,
    const Index first_row, const Index n_labels, const Index d, const Index* __restrict__ single_start,
    const int* __restrict__ single_pair, const signed char* __restrict__ single_sign, const int* __restrict__ used,
    const Index n_weights, const Index depth) {
    const Index row = rows[blockIdx.x];
    const Index begin = single_start[(row - first_row) * n_labels + d];
    const Index n_singles = single_start[(row - first_row) * n_labels + d + 1] - begin;
    double* out = weights + (Index)blockIdx.x * n_weights * depth;
    for (Index at = threadIdx.x; at < n_weights * depth; at += blockDim.x) {
        const Index w = at / depth, k = at % depth;
        double value = 0.0;
        if (k < n_singles) {
            const int pq = single_pair[begin + k];
            const Index rs = used[directed ? w >> 1 : w];
            const Index where = (Index)(pq >> 1) * n_pairs + rs;
            value = coupling[where];
            if (directed && 2 * rs + (w & 1) == (pq ^ 1)) value -= swap;
            if (has_twist) value += ((pq ^ (int)w) & 1) ? -twist[where] : twist[where];
            value *= (double)single_sign[begin + k];
        }
        out[at] = value;
    }
}

// G (batch, depth, n_ket): the ket rows, zeros behind the last one. One thread block for each row of G.
extern "C" __global__ void __launch_bounds__(256) opposite_gather(
    const double* __restrict__ ket, double* __restrict__ gathered, const int* __restrict__ rows,
    const Index* __restrict__ ket_offset, const Index first_row, const Index n_labels, const Index d,
    const Index* __restrict__ single_start, const int* __restrict__ single_ket, const Index depth, const Index n_ket) {
    const Index row = rows[blockIdx.x / depth], k = blockIdx.x % depth;
    const Index begin = single_start[(row - first_row) * n_labels + d];
    const Index n_singles = single_start[(row - first_row) * n_labels + d + 1] - begin;
    double* out = gathered + (Index)blockIdx.x * n_ket;
    const double* source = k < n_singles ? ket + ket_offset[single_ket[begin + k]] : nullptr;
    for (Index j = threadIdx.x; j < n_ket; j += blockDim.x) out[j] = source != nullptr ? source[j] : 0.0;
}

// sigma[I, J] += sum over the singles (J, J', rs, eta) of eta T[I][rs, J'] and over r occupied in J of T[I][rr, J].
// Thread block: one row of the batch and a stretch of its columns.
extern "C" __global__ void __launch_bounds__(256) opposite_contract(
    const double* __restrict__ product, double* __restrict__ sigma, const int* __restrict__ rows,
    const Index n_stretches, const Index* __restrict__ bra_offset, const Index* __restrict__ bra_stop,
    const Index* __restrict__ table, const Index list_number, const unsigned int* __restrict__ entries,
    const Index* __restrict__ slice_start, const int* __restrict__ counts, const int* __restrict__ order,
    const int* __restrict__ occupied, const Index n_electrons, const Index tile_width, const int directed,
    const Index n_weights) {
    const Index* list = table + list_number * TABLE;
    const Index n_columns = list[N_COLUMNS], n_ket = list[N_KET], n_slices = (n_columns + 31) / 32;
    const Index number = blockIdx.x / n_stretches;
    const Index row = rows[number];
    const Index position = (blockIdx.x % n_stretches) * blockDim.x + threadIdx.x;
    if (position >= n_columns) return;
    const Index j = order[list[FIRST_COLUMN] + position];
    if (j >= bra_stop[row]) return;
    const double* own = product + number * n_weights * n_ket;
    double total = 0.0;
    for (Index tile = 0; tile < list[N_TILES]; ++tile) {
        const int count = counts[list[FIRST_COUNT] + tile * n_columns + position];
        const unsigned int* from =
            entries + slice_start[list[FIRST_SLICE] + tile * n_slices + position / 32] + position % 32;
        for (int m = 0; m < count; ++m) {
            const unsigned int entry = from[32 * (Index)m];
            const Index w = directed ? directed_of(entry) : directed_of(entry) >> 1;
            total += sign_of(entry, 0) * own[w * n_ket + tile * tile_width + column_of(entry)];
        }
    }
    if (list[FIRST_OCCUPIED] >= 0) {
        for (Index r = 0; r < n_electrons; ++r) {
            const Index u = occupied[list[FIRST_OCCUPIED] + r * n_columns + position];
            total += own[(directed ? 2 * u : u) * n_ket + j];
        }
    }
    sigma[bra_offset[row] + j] += total;
}

// sigma[I, :] += sum over k in row I of H_alpha of value[k] C[column[k], :]. Thread block: a row and a stretch of columns.
extern "C" __global__ void __launch_bounds__(256) alpha_rows(
    const double* __restrict__ ket, double* __restrict__ sigma, const int* __restrict__ block_row,
    const int* __restrict__ block_column, const Index* __restrict__ bra_offset, const Index* __restrict__ bra_stop,
    const Index* __restrict__ ket_offset, const Index first_row, const Index* __restrict__ indptr,
    const int* __restrict__ column, const double* __restrict__ value) {
    SHARED_DOUBLES(values);  // blockDim.x elements of H_alpha at a time, and where their ket rows begin
    Index* places = (Index*)(values + blockDim.x);
    const Index row = block_row[blockIdx.x];
    const Index first_column = block_column[blockIdx.x] + threadIdx.x;
    const Index stop = bra_stop[row];
    const Index end = indptr[row - first_row + 1];
    double sum[COLUMNS];
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) sum[c] = 0.0;
    for (Index first = indptr[row - first_row]; first < end; first += blockDim.x) {
        const Index n = end - first < blockDim.x ? end - first : blockDim.x;
        __syncthreads();
        if (threadIdx.x < n) {
            values[threadIdx.x] = value[first + threadIdx.x];
            places[threadIdx.x] = ket_offset[column[first + threadIdx.x]];
        }
        __syncthreads();
        for (Index k = 0; k < n; ++k) {
            const double element = values[k];
            const double* source = ket + places[k];
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) {
                const Index j = first_column + (Index)c * blockDim.x;
                if (j < stop) sum[c] += element * source[j];
            }
        }
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
        const Index j = first_column + (Index)c * blockDim.x;
        if (j < stop) sigma[bra_offset[row] + j] += sum[c];
    }
}

// Copy the same stretch of several ket rows into shared memory, once all threads are through with what stood there.
__device__ __forceinline__ void stage_rows(const double* ket, const Index* offset, const int n_rows, const Index width,
                                           const Index tile_width, double* rows) {
    __syncthreads();
    for (Index g = 0; g < n_rows; ++g) {
        const double* source = ket + offset[g];
        for (Index k = threadIdx.x; k < width; k += blockDim.x) rows[g * tile_width + k] = source[k];
    }
    __syncthreads();
}

// Add the sums of a thread for several rows to those of its columns that are wanted.
__device__ __forceinline__ void add_rows(const double (&sum)[GROUP][COLUMNS], const int* columns, const int n_rows,
                                         const Index* offset, const Index* stop, double* sigma) {
#pragma unroll
    for (int g = 0; g < GROUP; ++g) {
        if (g >= n_rows) continue;
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c)
            if (columns[c] >= 0 && columns[c] < stop[g]) sigma[offset[g] + columns[c]] += sum[g][c];
    }
}

// sigma[I, J] += sum over singles of (value + eta g[rs, I]) C[I, J'], with g[rs, I] = sum over p occupied in I of
// coupling[pp, rs] (a twist is zero there). Without `same_spin` the value is left out.
//
// Thread block: up to GROUP rows of one label and a stretch of columns. A list entry is read once for all rows; their
// ket tiles and (if `staged`) their g lie in shared memory.
extern "C" __global__ void __launch_bounds__(256) beta_singles(
    const double* __restrict__ ket, double* __restrict__ sigma, const int* __restrict__ block_row,
    const int* __restrict__ block_n_rows, const int* __restrict__ block_column, const Index* __restrict__ bra_offset,
    const Index* __restrict__ bra_stop, const int* __restrict__ bra_label, const Index* __restrict__ own_offset,
    const double* __restrict__ coupling, const Index n_pairs, const int same_spin, const Index n_labels,
    const Index sector, const int* __restrict__ alpha_pair, const Index n_alpha, const Index* __restrict__ table,
    const unsigned int* __restrict__ entries, const Index* __restrict__ slice_start, const int* __restrict__ counts,
    const int* __restrict__ order, const double* __restrict__ single_value, const int* __restrict__ used,
    const Index tile_width, const Index staged) {
    SHARED_DOUBLES(shared);
    const Index first_row = block_row[blockIdx.x];
    const int n_rows = block_n_rows[blockIdx.x];
    const Index first_position = block_column[blockIdx.x] + threadIdx.x;
    const Index* list = table + (bra_label[first_row] ^ sector) * n_labels * TABLE;
    const Index n_columns = list[N_COLUMNS], n_ket = list[N_KET], n_used = list[N_USED];
    const Index n_slices = (n_columns + 31) / 32;
    const int* own_used = used + list[FIRST_USED];
    double* rows = shared + (staged ? n_rows * n_used : 0);
    int columns[COLUMNS];
    own_columns(list, order, first_position, n_columns, columns);
    double sum[GROUP][COLUMNS];
#pragma unroll
    for (int g = 0; g < GROUP; ++g)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) sum[g][c] = 0.0;
    if (staged) {
        for (Index at = threadIdx.x; at < n_rows * n_used; at += blockDim.x) {
            const int* orbitals = alpha_pair + (first_row + at / n_used) * n_alpha;
            double field = 0.0;
#pragma unroll 1
            for (Index p = 0; p < n_alpha; ++p) field += coupling[(Index)orbitals[p] * n_pairs + own_used[at % n_used]];
            shared[at] = field;
        }
    }
    for (Index tile = 0; tile < list[N_TILES]; ++tile) {
        const Index first_ket = tile * tile_width;
        const Index width = n_ket - first_ket < tile_width ? n_ket - first_ket : tile_width;
        stage_rows(ket + first_ket, own_offset + first_row, n_rows, width, tile_width, rows);
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
            if (columns[c] < 0) continue;
            const Index position = first_position + (Index)c * blockDim.x;
            const int count = counts[list[FIRST_COUNT] + tile * n_columns + position];
            const Index own = slice_start[list[FIRST_SLICE] + tile * n_slices + position / 32] + position % 32;
            for (int m = 0; m < count; ++m) {
                const unsigned int entry = entries[own + 32 * (Index)m];
                const Index u = directed_of(entry) >> 1, column = column_of(entry);
                const double value = same_spin ? single_value[own + 32 * (Index)m] : 0.0;
                const double sign = sign_of(entry, 0);
#pragma unroll
                for (int g = 0; g < GROUP; ++g) {
                    if (g >= n_rows) continue;
                    double field = 0.0;
                    if (staged) {
                        field = shared[g * n_used + u];
                    } else {
                        const int* orbitals = alpha_pair + (first_row + g) * n_alpha;
#pragma unroll 1
                        for (Index p = 0; p < n_alpha; ++p)
                            field += coupling[(Index)orbitals[p] * n_pairs + own_used[u]];
                    }
                    sum[g][c] += (value + sign * field) * rows[g * tile_width + column];
                }
            }
        }
    }
    add_rows(sum, columns, n_rows, bra_offset + first_row, bra_stop + first_row, sigma);
}

// sigma[I, J] += sum over doubles of value C[I, J']. Thread blocks as in beta_singles; list y is for columns of label y.
extern "C" __global__ void __launch_bounds__(256) beta_doubles(
    const double* __restrict__ ket, double* __restrict__ sigma, const int* __restrict__ block_row,
    const int* __restrict__ block_n_rows, const int* __restrict__ block_column, const Index* __restrict__ bra_offset,
    const Index* __restrict__ bra_stop, const int* __restrict__ bra_label, const Index* __restrict__ own_offset,
    const Index sector, const Index* __restrict__ table, const unsigned short* __restrict__ column,
    const Index* __restrict__ slice_start, const int* __restrict__ counts, const int* __restrict__ order,
    const double* __restrict__ value, const Index tile_width) {
    SHARED_DOUBLES(rows);
    const Index first_row = block_row[blockIdx.x];
    const int n_rows = block_n_rows[blockIdx.x];
    const Index first_position = block_column[blockIdx.x] + threadIdx.x;
    const Index* list = table + (bra_label[first_row] ^ sector) * TABLE;
    const Index n_columns = list[N_COLUMNS], n_ket = list[N_KET], n_slices = (n_columns + 31) / 32;
    int columns[COLUMNS];
    own_columns(list, order, first_position, n_columns, columns);
    double sum[GROUP][COLUMNS];
#pragma unroll
    for (int g = 0; g < GROUP; ++g)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) sum[g][c] = 0.0;
    for (Index tile = 0; tile < list[N_TILES]; ++tile) {
        const Index first_ket = tile * tile_width;
        const Index width = n_ket - first_ket < tile_width ? n_ket - first_ket : tile_width;
        stage_rows(ket + first_ket, own_offset + first_row, n_rows, width, tile_width, rows);
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
            if (columns[c] < 0) continue;
            const Index position = first_position + (Index)c * blockDim.x;
            const int count = counts[list[FIRST_COUNT] + tile * n_columns + position];
            const Index own = slice_start[list[FIRST_SLICE] + tile * n_slices + position / 32] + position % 32;
            for (int m = 0; m < count; ++m) {
                const double element = value[own + 32 * (Index)m];
                const Index from = column[own + 32 * (Index)m];
#pragma unroll
                for (int g = 0; g < GROUP; ++g)
                    if (g < n_rows) sum[g][c] += element * rows[g * tile_width + from];
            }
        }
    }
    add_rows(sum, columns, n_rows, bra_offset + first_row, bra_stop + first_row, sigma);
}

// Diagonal: out = constant + energies_a[I] + energies_b[J] + sum over p in I, r in J of density[p, r], for the elements
// start .. stop - 1 of the sub-block. Thread block: one row; it keeps sum_p density[p, :] in shared memory.
extern "C" __global__ void __launch_bounds__(256) diagonal_rows(
    double* __restrict__ out, const Index* __restrict__ row_offset, const Index* __restrict__ row_length,
    const Index* __restrict__ row_column, const Index start, const Index stop, const double* __restrict__ energies_a,
    const double* __restrict__ energies_b, const int* __restrict__ occupied_a, const Index n_alpha,
    const int* __restrict__ occupied_b, const Index n_beta, const double* __restrict__ density, const Index norb,
    const double constant) {
    SHARED_DOUBLES(field);
    const Index row = blockIdx.x;
    const Index offset = row_offset[row];
    const Index first = offset > start ? offset : start;
    const Index last = offset + row_length[row] < stop ? offset + row_length[row] : stop;
    for (Index r = threadIdx.x; r < norb; r += blockDim.x) {
        double total = 0.0;
        for (Index p = 0; p < n_alpha; ++p) total += density[(Index)occupied_a[row * n_alpha + p] * norb + r];
        field[r] = total;
    }
    __syncthreads();
    for (Index flat = first + threadIdx.x; flat < last; flat += blockDim.x) {
        const Index j = row_column[row] + flat - offset;
        double total = constant + energies_a[row] + energies_b[j];
        for (Index k = 0; k < n_beta; ++k) total += field[occupied_b[j * n_beta + k]];
        out[flat - start] = total;
    }
}
