// Opposite spin, T = W G made tile by tile in registers and used up in shared memory (docs/gpu.md).
//
// A thread block owns one alpha string I. With its alpha singles k of one label, W[k, w] = eps_k (pq_k|rs_w) and
// G[k, c] = C[I'_k, J'_c]. For a chunk of up to CHUNK orbital pairs w and a tile of ket columns c it makes
// T[w, c] = sum over k of W[k, w] G[k, c], 16 pairs by 2 columns in the registers of every thread, puts T into shared
// memory, and adds eta T[w, c] to the bra columns J that the beta singles (J, J', rs, eta) of this chunk and tile lead to.
//
// The entries of a cell (chunk, tile) are dealt to the threads (tiled_lists.py): all entries of one J go to one thread,
// so a sum is never added to by two threads between barriers. Entries of 32 neighbouring threads stand side by side.
//
// With spin-flip symmetry one half is enough: with pairs pq_k <= rs_w only (and half of those that are equal) the sum is
// Y, and Y plus its mirror image (`fold_rows`) is the whole. Terms of the beta diagonal (rr) have their mirror image in
// another task: they are in chunks of their own, and go to sigma directly.

#define CHUNK 64  // orbital pairs, at most
#define DEPTH 32  // alpha singles at a time, at most
#define PAIRS 16  // orbital pairs of a thread
#define NONE 0xffffffffu

#define LIST 6  // numbers of a list
#define FIRST_CHUNK 0
#define N_SINGLES_CHUNKS 1  // chunks of orbital pairs of singles; those of pairs rr follow
#define N_DIAGONAL_CHUNKS 2
#define N_TILES 3
#define N_KET 4
#define N_COLUMNS 5
#define CELLS 3  // numbers of a chunk: first orbital pair, number of pairs, first cell

struct alignas(16) Two {
    double x, y;
};

// Entry: bra column J (16 bits), orbital pair in its chunk (6), ket column in its tile (7), direction, sign.
__device__ __forceinline__ Index bra_of(const unsigned int entry) { return entry & 0xffffu; }
__device__ __forceinline__ int pair_of(const unsigned int entry) { return (entry >> 16) & 0x3fu; }
__device__ __forceinline__ int ket_of(const unsigned int entry) { return (entry >> 22) & 0x7fu; }
__device__ __forceinline__ int direction_of(const unsigned int entry) { return (entry >> 29) & 1u; }

// How many of the singles first .. end - 1, sorted by orbital pair, have a pair of at most `last`.
__device__ __forceinline__ Index reach(const int* pair, const Index first, const Index end, const int last) {
    Index low = first, high = end;
    while (low < high) {
        const Index middle = (low + high) / 2;
        if ((pair[middle] >> 1) <= last)
            low = middle + 1;
        else
            high = middle;
    }
    return low - first;
}

// sigma[J] += the sums of a row, and zero them if they are used again.
__device__ __forceinline__ void write_sums(double* sums, const Index n, double* out, const Index stop) {
    __syncthreads();
    for (Index j = threadIdx.x; j < n; j += blockDim.x) {
        if (j < stop) out[j] += sums[j];
        sums[j] = 0.0;
    }
    __syncthreads();
}

// `half`: target is Y with rows of all columns; else it is sigma. n_sums: room for the sums of a row in shared memory; 0
// adds to memory at once.
extern "C" __global__ void __launch_bounds__(256, 1) opposite_tiled(
    const double* __restrict__ ket, double* __restrict__ sigma, double* __restrict__ target,
    const int* __restrict__ rows, const Index* __restrict__ bra_offset, const Index* __restrict__ bra_stop,
    const Index* __restrict__ target_offset, const int* __restrict__ bra_label, const Index* __restrict__ ket_offset,
    const double* __restrict__ coupling, const double* __restrict__ twist, const Index n_pairs, const double swap,
    const int directed, const int has_twist, const int half, const Index first_row, const Index n_labels,
    const Index sector, const Index d, const Index* __restrict__ single_start, const int* __restrict__ single_ket,
    const int* __restrict__ single_pair, const signed char* __restrict__ single_sign,
    const Index* __restrict__ lists, const Index* __restrict__ chunks, const int* __restrict__ used,
    const Index* __restrict__ slice_start, const unsigned int* __restrict__ entries, const Index n_sums) {
    SHARED_DOUBLES(shared);
    const int tile_width = (int)blockDim.x / 2, n_warps = (int)blockDim.x / 32;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int first_pair = PAIRS * (warp % 4), own_column = 64 * (warp / 4) + 2 * lane;
    double* tile_of = shared;  // G, later T
    double* weights = tile_of + CHUNK * tile_width;
    double* sums = weights + DEPTH * CHUNK;
    Index* places = (Index*)(sums + n_sums);

    const Index row = rows[blockIdx.x];
    const Index begin = single_start[(row - first_row) * n_labels + d];
    const Index end = single_start[(row - first_row) * n_labels + d + 1];
    const Index* list = lists + ((bra_label[row] ^ sector) * n_labels + d) * LIST;
    const Index n_ket = list[N_KET], n_chunks = list[N_SINGLES_CHUNKS] + list[N_DIAGONAL_CHUNKS];
    const Index n_columns = list[N_COLUMNS], stop = bra_stop[row];
    const Index target_stop = half ? n_columns : stop;
    for (Index j = threadIdx.x; j < n_sums; j += blockDim.x) sums[j] = 0.0;
    __syncthreads();

    for (Index number = 0; number < n_chunks; ++number) {
        const Index* chunk = chunks + (list[FIRST_CHUNK] + number) * CELLS;
        const int* own_used = used + chunk[0];
        const int n_used = (int)chunk[1];
        const bool diagonal = number >= list[N_SINGLES_CHUNKS];
        if (n_sums > 0 && half && number == list[N_SINGLES_CHUNKS])  // from here on to sigma
            write_sums(sums, n_columns, target + target_offset[row], target_stop);
        double* out = diagonal || !half ? sigma + bra_offset[row] : target + target_offset[row];
        const Index wanted = diagonal || !half ? stop : target_stop;
        const bool halved = half && !diagonal;
        const Index n_singles = halved ? reach(single_pair, begin, end, own_used[n_used - 1]) : end - begin;
        const Index n_passes = (n_singles + DEPTH - 1) / DEPTH;
        const int n_directions = directed && !diagonal ? 2 : 1;
        for (Index turn = 0; turn < n_passes * n_directions; ++turn) {
            const int direction = (int)(turn % n_directions);
            const Index pass = turn / n_directions;
            const Index first = begin + n_singles * pass / n_passes;
            const int n = (int)(begin + n_singles * (pass + 1) / n_passes - first);
            const int n_padded = (n_used + PAIRS - 1) / PAIRS * PAIRS;
            // Nobody reads weights and places any more: all have passed the barrier after their last use.
            for (int at = (int)threadIdx.x; at < n * n_padded; at += (int)blockDim.x) {
                const int k = at / n_padded, w = at % n_padded;
                double value = 0.0;
                if (w < n_used) {
                    const int pq = single_pair[first + k], rs = own_used[w];
                    const Index where = (Index)(pq >> 1) * n_pairs + rs;
                    value = coupling[where];
                    if (directed && 2 * rs + direction == (pq ^ 1)) value -= swap;
                    if (has_twist) value += ((pq ^ direction) & 1) ? -twist[where] : twist[where];
                    value *= (double)single_sign[first + k];
                    if (halved) value *= (pq >> 1) < rs ? 1.0 : (pq >> 1) == rs ? 0.5 : 0.0;
                }
                weights[k * CHUNK + w] = value;
            }
            for (int k = (int)threadIdx.x; k < n; k += (int)blockDim.x) places[k] = ket_offset[single_ket[first + k]];
            // Pairs behind n_used have no weight; with `halved` the first pairs meet fewer singles than the last ones.
            int depth = first_pair < n_used ? n : 0;
            if (halved && depth > 0) {
                const int last = first_pair + PAIRS < n_used ? first_pair + PAIRS - 1 : n_used - 1;
                depth = (int)reach(single_pair, first, first + n, own_used[last]);
            }
            for (Index tile = 0; tile < list[N_TILES]; ++tile) {
                const Index* slice = slice_start + (chunk[2] + tile) * n_warps;
                if (slice[0] == slice[n_warps]) continue;
                const Index first_ket = tile * tile_width;
                __syncthreads();  // the T before is used up; weights and places are there
#pragma unroll 4
                for (int at = (int)threadIdx.x; at < n * tile_width; at += (int)blockDim.x) {
                    const Index k = at / tile_width, c = first_ket + at % tile_width;
                    tile_of[at] = c < n_ket ? ket[places[k] + c] : 0.0;
                }
                __syncthreads();
                double sum[PAIRS][2];
#pragma unroll
                for (int w = 0; w < PAIRS; ++w) sum[w][0] = sum[w][1] = 0.0;
                for (int k = 0; k < depth; ++k) {
                    const Two source = *(const Two*)(tile_of + k * tile_width + own_column);
                    const Two* weight = (const Two*)(weights + k * CHUNK + first_pair);
#pragma unroll
                    for (int w = 0; w < PAIRS; w += 2) {
                        const Two both = weight[w / 2];
                        sum[w][0] += both.x * source.x;
                        sum[w][1] += both.x * source.y;
                        sum[w + 1][0] += both.y * source.x;
                        sum[w + 1][1] += both.y * source.y;
                    }
                }
                __syncthreads();  // all have read G
                if (first_pair < n_used) {
#pragma unroll
                    for (int w = 0; w < PAIRS; ++w) {
                        Two* place = (Two*)(tile_of + (first_pair + w) * tile_width + own_column);
                        place->x = sum[w][0];
                        place->y = sum[w][1];
                    }
                }
                __syncthreads();
                for (Index at = slice[warp] + lane; at < slice[warp + 1]; at += 32) {
                    const unsigned int entry = entries[at];
                    if (entry == NONE) break;
                    if (n_directions == 2 && direction_of(entry) != direction) continue;
                    const double value = tile_of[pair_of(entry) * tile_width + ket_of(entry)];
                    const double term = entry >> 30 ? -value : value;
                    if (n_sums > 0)
                        sums[bra_of(entry)] += term;
                    else if (bra_of(entry) < wanted)
                        out[bra_of(entry)] += term;
                }
            }
        }
    }
    if (n_sums > 0) {
        const bool to_sigma = !half || list[N_DIAGONAL_CHUNKS] > 0;
        if (to_sigma)
            write_sums(sums, n_columns, sigma + bra_offset[row], stop);
        else
            write_sums(sums, n_columns, target + target_offset[row], target_stop);
    }
}

#define TURN 32

// sigma[i, j] += Y[i, j] + parity Y[j, i] for the wanted j < bra_stop[i] of every label's square. Thread block: TURN rows
// of one label, beginning at first[blockIdx.x]; label_first and label_end: rows of the label.
extern "C" __global__ void __launch_bounds__(256) fold_rows(
    const double* __restrict__ whole, double* __restrict__ sigma, const int* __restrict__ first,
    const int* __restrict__ label_first, const int* __restrict__ label_end, const Index* __restrict__ bra_offset,
    const Index* __restrict__ bra_stop, const Index* __restrict__ whole_offset, const double parity) {
    SHARED_DOUBLES(square);
    const Index low = label_first[blockIdx.x], end = label_end[blockIdx.x], start = first[blockIdx.x];
    const Index high = start + TURN < end ? start + TURN : end;
    for (Index left = low; left < high; left += TURN) {
        __syncthreads();
        for (int at = (int)threadIdx.x; at < TURN * TURN; at += (int)blockDim.x) {
            const Index j = left + at / TURN, i = start + at % TURN;
            if (j < end && i < high) square[at / TURN * (TURN + 1) + at % TURN] = whole[whole_offset[j] + i - low];
        }
        __syncthreads();
        for (int at = (int)threadIdx.x; at < TURN * TURN; at += (int)blockDim.x) {
            const Index i = start + at / TURN, j = left + at % TURN;
            if (i >= high || j - low >= bra_stop[i]) continue;
            sigma[bra_offset[i] + j - low] +=
                whole[whole_offset[i] + j - low] + parity * square[at % TURN * (TURN + 1) + at / TURN];
        }
    }
}
