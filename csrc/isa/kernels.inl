// The table of one instruction set: the only symbol its file exports.
#pragma once

#include "attention.inl"
#include "gram.inl"
#include "group_moments.inl"
#include "moments.inl"
#include "neighbors.inl"
#include "pairs.inl"

namespace fastaniso {

extern const Kernels FASTANISO_KERNELS;
const Kernels FASTANISO_KERNELS = {
    FASTANISO_NAME,
    {panel_width<float>(), panel_width<double>()},
    {moments<float>, moments<double>, moments<Half>, moments<BFloat>},
    {row_norms<float>, row_norms<double>, row_norms<Half>, row_norms<BFloat>},
    {add_units<float>, add_units<double>, add_units<Half>, add_units<BFloat>},
    {pack<float>, pack<double>, pack<Half>, pack<BFloat>},
    {multiply<float>, multiply<double>},
    {pack_units<float>, pack_units<double>, pack_units<Half>, pack_units<BFloat>},
    {pairs<float>, pairs<double>},
    {neighbors<float>, neighbors<double>},
    {pack_vectors<float>, pack_vectors<double>, pack_vectors<Half>, pack_vectors<BFloat>},
    {attention<float>, attention<double>},
    {add_panel_columns<float>, add_panel_columns<double>},
};

}  // namespace fastaniso
